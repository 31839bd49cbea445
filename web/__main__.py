"""`python -m web` serves HTTP until it is stopped; `./run web` runs it with the settings of an installation."""

from web.server import serve
from web.settings import WebSettings

if __name__ == "__main__":
    serve(WebSettings.from_environment())
