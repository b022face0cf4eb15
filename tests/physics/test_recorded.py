"""Optics from what files say about microscopes."""

from __future__ import annotations

import pytest

from napari_restore.errors import PsfError
from napari_restore.physics.recorded import recorded_optics

OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
  <Instrument ID="Instrument:0">
    <Objective ID="Objective:0" LensNA="0.5" Immersion="Air"/>
    <Objective ID="Objective:1" LensNA="1.3" Immersion="Oil"/>
  </Instrument>
  <Image ID="Image:0">
    <ObjectiveSettings ID="Objective:1" Medium="Water"/>
    <Pixels ID="Pixels:0" PhysicalSizeX="65" PhysicalSizeXUnit="nm" PhysicalSizeZ="0.2">
      <Channel ID="Channel:0" Name="DAPI" EmissionWavelength="461"/>
      <Channel ID="Channel:1" Name="GFP" EmissionWavelength="0.52" EmissionWavelengthUnit="µm"
        ExcitationWavelength="488" AcquisitionMode="LaserScanningConfocalMicroscopy"/>
      <Channel ID="Channel:2"/>
    </Pixels>
  </Image>
</OME>"""


def test_each_channel_has_its_wavelength():
    dapi, gfp, nameless = recorded_optics(OME)
    assert (dapi.name, gfp.name, nameless.name) == ("DAPI", "GFP", "")
    shared = {"na": 1.3, "pixel_size": 0.065, "z_step": 0.2, "ri_immersion": 1.515}
    for channel in (dapi, gfp, nameless):
        assert {name: channel.found[name] for name in shared} == pytest.approx(shared)
        assert channel.found["ri_sample"] == 1.33
    assert dapi.optics().wavelength == pytest.approx(0.461)
    assert gfp.optics().modality == "confocal"
    assert gfp.optics().excitation == pytest.approx(0.488)
    assert nameless.missing == ("emission wavelength",)
    assert nameless.optics(wavelength="600 nm").wavelength == pytest.approx(0.6)
    with pytest.raises(PsfError, match="wavelength is missing"):
        nameless.optics()


def test_dictionaries_say_the_same():
    from tifffile import xml2dict

    assert recorded_optics(xml2dict(OME)) == recorded_optics(OME)
    flat = {"na": 0.8, "pixel_size": "100 nm", "channels": [{"wavelength": "520 nm"}, {"x": 1}]}
    first, second = recorded_optics(flat)
    assert first.found == pytest.approx({"na": 0.8, "pixel_size": 0.1, "wavelength": 0.52})
    assert second.missing == ("emission wavelength",)
    assert second.notes == ("Not understood: x.",)


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ('LensNA="1.3"', "", "numerical aperture"),
        ('LensNA="1.3"', 'LensNA="0"', "numerical aperture"),
        ('PhysicalSizeX="65"', 'PhysicalSizeX="0"', "pixel size"),
        ('PhysicalSizeXUnit="nm"', 'PhysicalSizeXUnit="pixel"', "pixel size"),
        ('PhysicalSizeX="65" PhysicalSizeXUnit="nm"', "", "pixel size"),
        ('ID="Objective:1" Medium', 'ID="Objective:7" Medium', "numerical aperture"),
        ("LaserScanningConfocalMicroscopy", "SPIM", "sheet thickness"),
        ("LaserScanningConfocalMicroscopy", "MultiPhotonMicroscopy", "excitation wavelength"),
    ],
)
def test_what_is_missing_is_named(old, new, missing):
    assert old in OME
    assert missing in recorded_optics(OME.replace(old, new))[1].missing


def test_bare_documents_and_texts():
    (empty,) = recorded_optics("<OME><Image><Pixels/></Image></OME>")
    assert empty.missing == ("numerical aperture", "emission wavelength", "pixel size")
    with pytest.raises(PsfError, match="not OME-XML"):
        recorded_optics("ImageJ=1.53")
