"""The templates by which a process decides; a reload replaces all of them at once."""

from service.jobs.templates import Templates


class TemplatesInForce:
    """Holds the templates. A decision reads them once, so it is made by the old ones or the new ones, never by both."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates

    @property
    def now(self) -> Templates:
        """The templates that are in force at this moment."""
        return self._templates

    def replace(self, templates: Templates) -> None:
        """Put other templates in force for the decisions that begin from now on; from any thread."""
        self._templates = templates
