"""Amazon Reviews 2023."""

from __future__ import annotations

from pathlib import Path

from lares.errors import DownloadError
from lares.names import nearest
from lares_kernels.common.cache import cache_folder

AMAZON_REPOSITORY = "McAuley-Lab/Amazon-Reviews-2023"
AMAZON_CATEGORIES = (
    "All_Beauty",
    "Amazon_Fashion",
    "Appliances",
    "Arts_Crafts_and_Sewing",
    "Automotive",
    "Baby_Products",
    "Beauty_and_Personal_Care",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Gift_Cards",
    "Grocery_and_Gourmet_Food",
    "Handmade_Products",
    "Health_and_Household",
    "Health_and_Personal_Care",
    "Home_and_Kitchen",
    "Industrial_and_Scientific",
    "Kindle_Store",
    "Magazine_Subscriptions",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Software",
    "Sports_and_Outdoors",
    "Subscription_Boxes",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Video_Games",
)


def get_amazon_2023(category: str, folder: Path | None = None) -> Path:
    """The 5-core interactions of a category of Amazon Reviews 2023, from the Hugging Face hub.

    The hub's client shows progress, goes on with a download that was cut off, and checks what came.

    Args:
        category: one of ``AMAZON_CATEGORIES``.
        folder: where to put it; by default ``amazon23`` in the cache folder.

    Returns:
        The CSV file.

    Raises:
        DownloadError: there is no such category, or the hub cannot be reached.
    """
    if category not in AMAZON_CATEGORIES:
        raise DownloadError(
            f"unknown category {category!r}; {nearest(category, AMAZON_CATEGORIES)}"
        )
    folder = folder or cache_folder() / "amazon23"
    name = f"benchmark/5core/rating_only/{category}.csv"
    if (folder / name).is_file():
        return folder / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        file = hf_hub_download(
            repo_id=AMAZON_REPOSITORY,
            repo_type="dataset",
            filename=name,
            local_dir=folder,
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise DownloadError(
            f"{category}.csv of {AMAZON_REPOSITORY} cannot be fetched from the Hugging Face hub: "
            f"{error}"
        ) from error
    return Path(file)
