"""An application that asks a language model of its own."""
