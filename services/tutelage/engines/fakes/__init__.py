"""Upstream servers in small: the toy teacher behind the HTTP that vLLM, SGLang, OpenAI and chat APIs really speak.

Each knows the traps of its original, switched on by name: what a server does when a flag is missing, a version is old,
or it is under load. For tests, and for trying commands without a GPU or a key.
"""

from tutelage.engines.fakes.apps import APPS
from tutelage.engines.fakes.serving import listening
from tutelage.engines.fakes.tokenizer import write_tokenizer
from tutelage.engines.fakes.toy import ToyServer, Trap

__all__ = ["APPS", "ToyServer", "Trap", "listening", "write_tokenizer"]
