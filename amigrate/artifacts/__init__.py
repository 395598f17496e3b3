"""Where bytes live. One interface, `Folder`; the stored location's scheme decides which one serves it."""

from amigrate.artifacts.folder import Entry, Folder
from amigrate.artifacts.proxy import proxy_path
from amigrate.artifacts.route import folder_of, model_folder_of, trace_folder_of

__all__ = ["Entry", "Folder", "folder_of", "model_folder_of", "proxy_path", "trace_folder_of"]
