"""Trained backbones inside Mask R-CNN, fine-tuned and evaluated on COCO. Needs torchvision and pycocotools."""

from locallearn.detection._detect import detect as detect
from locallearn.detection._detector import mask_rcnn as mask_rcnn
from locallearn.detection._pyramid import STRIDES as STRIDES, Pyramid as Pyramid
from locallearn.detection._settings import DetectSettings as DetectSettings
