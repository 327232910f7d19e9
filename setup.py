"""Packaging: the rooms are real top-level packages, listed by name; tools, tests and benchmarks are not installed."""

from setuptools import find_packages, setup

ROOMS = ["backbones", "detectors", "data", "evaluation", "engine", "configs"]

setup(
    name="vertebra",
    version="0.1.0",
    description="Train an image backbone, plug it into a detector, and measure what it is worth in mAP",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=ROOMS + [f"{room}.*" for room in ROOMS]),
    package_data={"configs": ["**/*.yaml"], "evaluation": ["*/*.j2", "*/*.css", "*/*.js"]},
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "numpy>=1.24",
        "pycocotools>=2.0.8",
        "opencv-python-headless>=4.9",
        "pillow>=9",  # sizes from the headers of images, as torchvision needs it anyway
        "pydantic>=2.6",
        "tyro>=0.9.2",
        "PyYAML>=6.0",
        "safetensors>=0.4.3",
        "tensorboard>=2.14",
        "Jinja2>=3.1",
        "tqdm>=4.66",
    ],
    extras_require={
        "timm": ["timm>=1.0"],
        "slurm": ["submitit>=1.5"],  # comparisons in a cluster's queue
        "http": ["fsspec[http]"],  # shards on a web server
        "browser": ["playwright>=1.49"],  # drives the system's Chromium: the test of the report's page, its pictures
        "test": [
            "fsspec[http]",
            "webdataset>=0.2.86",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "timm>=1.0",
            "submitit>=1.5",
            "ruff>=0.9",
            "mypy>=1.14",
            "import-linter>=2.1",
        ],
    },
)
