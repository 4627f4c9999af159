from reviews_before.main import app

from seamline import Module

module = Module("before")
module.mount(app, at="/before")
