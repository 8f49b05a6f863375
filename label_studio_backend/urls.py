"""Label Studio's routes and ours: the storage API under the paths of the other types, and the dialog's script."""

from core.urls import urlpatterns as stock_urlpatterns
from django.urls import re_path

from . import api
from .serializers import PachydermImportStorageSerializer

_SOURCE = r"^api/storages/pachyderm"
_TARGET = r"^api/storages/export/pachyderm"

urlpatterns = [
    re_path(_SOURCE + r"/?$", api.PachydermImportStorageListAPI.as_view()),
    re_path(_SOURCE + r"/(?P<pk>\d+)/?$", api.PachydermImportStorageDetailAPI.as_view()),
    re_path(_SOURCE + r"/(?P<pk>\d+)/sync/?$", api.PachydermImportStorageSyncAPI.as_view()),
    re_path(_SOURCE + r"/validate/?$", api.PachydermImportStorageValidateAPI.as_view()),
    re_path(_SOURCE + r"/form/?$", api.PachydermImportStorageFormLayoutAPI.as_view()),
    re_path(
        _SOURCE + r"/files/?$", api.PachydermListFilesAPI.as_view(serializer_class=PachydermImportStorageSerializer)
    ),
    re_path(_TARGET + r"/?$", api.PachydermExportStorageListAPI.as_view()),
    re_path(_TARGET + r"/(?P<pk>\d+)/?$", api.PachydermExportStorageDetailAPI.as_view()),
    re_path(_TARGET + r"/(?P<pk>\d+)/sync/?$", api.PachydermExportStorageSyncAPI.as_view()),
    re_path(_TARGET + r"/validate/?$", api.PachydermExportStorageValidateAPI.as_view()),
    re_path(_TARGET + r"/form/?$", api.PachydermExportStorageFormLayoutAPI.as_view()),
    re_path(r"^howdah/(?P<name>provider|cards)\.js$", api.dialog_script),
    *stock_urlpatterns,
]
