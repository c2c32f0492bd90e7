"""Images: digits, folders, Parquet; splits that never meet; augmentation with stateless streams."""

from vitresnas.data.augmentation import Augmentation
from vitresnas.data.image_set import MEAN, STD, ImageSet, normalise
from vitresnas.data.load import Data, load_data
from vitresnas.data.loader import TrainingLoader
from vitresnas.data.mixing import Mixer, Mixing
from vitresnas.data.share import Piece, Share
from vitresnas.data.streams import generator, seeded, stream
from vitresnas.data.training_images import TrainingImages

__all__ = [
    "MEAN",
    "STD",
    "Augmentation",
    "Data",
    "ImageSet",
    "Mixer",
    "Mixing",
    "Piece",
    "Share",
    "TrainingImages",
    "TrainingLoader",
    "generator",
    "load_data",
    "normalise",
    "seeded",
    "stream",
]
