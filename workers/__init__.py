"""The Celery application and every process of an installation."""
