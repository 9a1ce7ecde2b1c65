"""The Models service: which models are served."""

from pathlib import Path
from typing import Any

from octavo.v1 import models_pb2, models_pb2_grpc

from .engine_catalog import EngineCatalog
from .served_model import ServedModel


class ModelsServicer(models_pb2_grpc.ModelsServicer):
    """Lists the models of the engines behind this router, one entry for each name."""

    def __init__(self, catalog: EngineCatalog) -> None:
        self._catalog = catalog

    async def ListModels(
        self, request: models_pb2.ListModelsRequest, context: Any
    ) -> models_pb2.ListModelsResponse:
        models = [_describe(name, self._catalog.find(name).model) for name in self._catalog.names()]
        return models_pb2.ListModelsResponse(models=models)

    async def GetModel(
        self, request: models_pb2.GetModelRequest, context: Any
    ) -> models_pb2.GetModelResponse:
        model = self._catalog.find(request.model).model
        return models_pb2.GetModelResponse(model=_describe(request.model or model.name, model))


def _describe(name: str, model: ServedModel) -> models_pb2.Model:
    return models_pb2.Model(
        id=name,
        created_s=model.info.created_s,
        max_model_len=model.info.max_model_len,
        root=Path(model.info.path).name,
    )
