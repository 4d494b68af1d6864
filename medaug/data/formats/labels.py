"""From the files that hold a scan's labels to one label map: a reader for each form of them."""

from collections.abc import Collection

from monai.data import ImageReader

from medaug.core.types import LabelFiles
from medaug.data.formats.dicom_seg import SegmentationReader
from medaug.data.formats.readers import LabelReader, MasksReader


def reader_of(marks: LabelFiles, known: Collection[int]) -> ImageReader:
    """A MONAI reader that turns the files of ``marks`` into uint8 ``[x, y, z]``.

    Args:
        marks: of one scan.
        known: the ids that the result may hold besides 0.
    """
    if marks.each is not None:
        ids = marks.ids or {}
        return MasksReader([ids.get(value, value) for value in marks.each])
    if marks.files[0].suffix.lower() == ".dcm":
        return SegmentationReader(known, marks.ids, marks.scan)
    return LabelReader(known, marks.ids, marks.strict)
