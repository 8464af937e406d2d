# The part of google-re2 that the service uses; the package has no types of its own.

class error(Exception): ...

class Options:
    max_mem: int
    log_errors: bool
    never_capture: bool

class _Match: ...

class _Regexp:
    @property
    def programsize(self) -> int: ...
    def fullmatch(self, text: str) -> _Match | None: ...

def compile(pattern: str, options: Options | None = None) -> _Regexp: ...
