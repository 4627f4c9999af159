from reviews_after.main import app

from seamline import Module

module = Module("after")
module.mount(app, at="/after")
