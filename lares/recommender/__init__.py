"""From interactions to recommendations in raw ids, whoever keeps them in which kind of table."""

from lares.recommender.recommender import Recommender

__all__ = ["Recommender"]
