"""The demo: a sample marketplace with a past, whose alerts unlock while the user watches."""
