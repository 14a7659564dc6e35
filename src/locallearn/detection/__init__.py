"""Fine-tunes Mask R-CNN on a trained backbone and evaluates it on COCO. Imports `export` and what is below it.

It needs torchvision and pycocotools.
"""

from locallearn.detection.detector import mask_rcnn as mask_rcnn
from locallearn.detection.pyramid import STRIDES as STRIDES, Pyramid as Pyramid
from locallearn.detection.run import detect as detect
from locallearn.detection.settings import DetectSettings as DetectSettings
