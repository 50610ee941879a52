"""DataModules: images of known density, Fashion-MNIST, digits, any folder of images, and the Hugging Face hub."""

from jepa_train.data.base import ImageDataModule, PictureDataModule
from jepa_train.data.digits import DigitsDataModule
from jepa_train.data.fashion_mnist import FashionMNISTDataModule
from jepa_train.data.hugging_face import HuggingFaceDataModule
from jepa_train.data.image_folder import ImageFolderDataModule
from jepa_train.data.mixture import ImageMixture, MixtureDataModule, MixtureDataset, image_mixture
from jepa_train.data.resumable import DrawnPerEpoch, EpochSampler, ResumableDataLoader
from jepa_train.data.shapes import ShapesDataModule, ShapesDataset
from jepa_train.data.transforms import data_config

__all__ = [
    "DigitsDataModule",
    "DrawnPerEpoch",
    "EpochSampler",
    "FashionMNISTDataModule",
    "HuggingFaceDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImageMixture",
    "MixtureDataModule",
    "MixtureDataset",
    "PictureDataModule",
    "ResumableDataLoader",
    "ShapesDataModule",
    "ShapesDataset",
    "data_config",
    "image_mixture",
]
