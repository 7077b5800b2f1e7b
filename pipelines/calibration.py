"""Calibration that files carry beside the pixel size: seconds between frames, distance of sections.

The pixel size is read in `pipelines.decoding`, together with the pixels; all of it is written by `pipelines.images`.
"""

import contextlib
from pathlib import Path
from xml.etree import ElementTree

from pipelines.decoding import MICROMETRES, SPACINGS_UM, TIFF_SUFFIXES, checked_suffix
from pipelines.microscopes import MICROSCOPE_SUFFIXES, read_calibration
from pipelines.tiffs import open_tiff

SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "µs": 1e-6, "μs": 1e-6}
SECONDS |= {"us": 1e-6, "ns": 1e-9, "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0}
SECONDS |= {"hours": 3600.0, "hr": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0}


def read_interval_s(path: Path | str) -> float | None:
    """Seconds between frames: OME-XML, ImageJ's `finterval`, a microscope's own file; None where they are not known."""
    if Path(path).suffix.lower() in MICROSCOPE_SUFFIXES:
        return read_calibration(Path(path)).interval_s
    return _above_zero(Path(path), "TimeIncrement", "s", "finterval", "tunit", "s", SECONDS)


def read_section_um(path: Path | str) -> float | None:
    """Distance of sections in micrometres, likewise from `spacing`; None where it is not known."""
    if Path(path).suffix.lower() in MICROSCOPE_SUFFIXES:
        return read_calibration(Path(path)).section_um
    distance = _above_zero(Path(path), "PhysicalSizeZ", "µm", "spacing", "unit", "", MICROMETRES)
    return distance if distance is not None and SPACINGS_UM[0] <= distance <= SPACINGS_UM[1] else None


def _above_zero(
    path: Path, ome: str, ome_unit: str, imagej: str, imagej_unit: str, usual: str, units: dict[str, float]
) -> float | None:
    if path.is_dir() or checked_suffix(path) not in TIFF_SUFFIXES:
        return None
    with open_tiff(path) as tiff, contextlib.suppress(ElementTree.ParseError, ValueError, KeyError, TypeError):
        tif = tiff.file
        if tif.ome_metadata:
            pixels = next(one for one in ElementTree.fromstring(tif.ome_metadata).iter() if one.tag.endswith("}Pixels"))
            value = float(pixels.attrib[ome]) * units[pixels.get(f"{ome}Unit", ome_unit)]
        else:
            found = tif.imagej_metadata or {}
            unit = str(found.get(imagej_unit, usual)).replace("\\u00B5", "µ")
            value = float(found[imagej]) * units[unit]
        return value if 0 < value < float("inf") else None
    return None
