"""From a recipe to parts: the only module that reads recipes and knows all rooms."""
