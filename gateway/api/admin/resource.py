"""The five operations of a collection, written once: pages, ETags, If-Match, and the wait until it is live."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar

from litestar import Request, Response, Router, delete, get, post, put
from litestar.openapi.spec import Operation as OpenApiOperation
from litestar.openapi.spec import Parameter as OpenApiParameter
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import BodyKwarg, FromPath, QueryParameter
from msgspec import Struct

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.preconditions import IfMatch, etag, expected_version
from gateway.api.admin.problems import invalid
from gateway.api.admin.routing import operation
from tenants.roles import Operation
from tenants.store import OrgStore, Repository, StoreUnavailableError

T = TypeVar("T", bound=Struct)
B = TypeVar("B", bound=Struct)
P_co = TypeVar("P_co", bound=Struct, covariant=True)

MAX_PAGE = 500
MAX_REMARKS = 8
REMARK = "x-orgate-remark"
"""A response header: what was written stands, and is perhaps not what was meant. Several are parted by "; "."""

After = Annotated[str, QueryParameter(max_length=128, description="The `next` of the page before; '' begins.")]
PageLimit = Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="Items a page.")]


class Page(Struct, Generic[T], frozen=True):
    """`next` is the `after` of the page that follows, '' on the last one."""

    items: tuple[T, ...]
    next: str


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[T, B]):
    """One kind of thing in an organization. `make` builds the item a body describes (current: None for a new
    one); `creating`, `replacing` (what stands, what shall stand) and `deleting` run before the write and may
    refuse it; `deleted` runs after the write, before the answer. `remarks` are what whoever wrote the item should
    know: they come with the answer, in `REMARK`."""

    noun: str
    model: type[T]
    body: type[B]
    filters: tuple[str, ...]
    repository: Callable[[OrgStore], Repository[T]]
    make: Callable[[Caller, B, T | None], T]
    creating: Callable[[Caller, T], Awaitable[None]] | None = None
    replacing: Callable[[Caller, T, T], Awaitable[None]] | None = None
    deleting: Callable[[Caller, str], Awaitable[None]] | None = None
    deleted: Callable[[Caller, str], Awaitable[None]] | None = None
    remarks: Callable[[Caller, T], Awaitable[Sequence[str]]] | None = None

    @property
    def path(self) -> str:
        return f"/orgs/{{org:str}}/{self.noun.replace('_', '-')}s"

    @property
    def title(self) -> str:
        """Of its operations' ids: `AuditStream`."""
        return "".join(part.capitalize() for part in self.noun.split("_"))


def answer(
    item: T, *, status: int = 200, location: str = "", body: Struct | None = None, remarks: Sequence[str] = ()
) -> Response[Any]:
    """`item` (or `body`, that tells more than it) with its version as ETag."""
    version: int = item.version  # type: ignore[attr-defined]  # every stored thing has one
    headers = {"ETag": etag(version)}
    if location:
        headers["Location"] = location
    if remarks:
        more = [f"and {len(remarks) - MAX_REMARKS} more remarks"] if len(remarks) > MAX_REMARKS else []
        said = "; ".join([*remarks[:MAX_REMARKS], *more])
        headers[REMARK] = said.encode("ascii", "backslashreplace").decode()
    return Response(item if body is None else body, status_code=status, headers=headers)


class Paged(Protocol[P_co]):
    """What comes in pages: every `Repository`, and what is not changed as one."""

    async def page(
        self, *, after: str = "", limit: int = 100, filters: Mapping[str, str] | None = None
    ) -> tuple[tuple[P_co, ...], str]: ...


async def page(
    repository: Paged[T], request: Request[Any, Any, Any], allowed: tuple[str, ...], after: str, limit: int
) -> Page[T]:
    """One page. Every query parameter but `after` and `limit` is a filter; an unknown one is refused, because
    a filter that is misspelt and ignored shows everything."""
    filters: dict[str, str] = {}
    for name, values in request.query_params.dict().items():
        if len(values) > 1:
            raise invalid((name, "is given more than once"))
        if name in {"after", "limit"}:
            continue
        if name not in allowed:
            raise invalid((name, f"is no field to filter by; those are {', '.join(allowed)}"))
        filters[name] = values[0]
    items, following = await repository.page(after=after, limit=limit, filters=filters)
    return Page(items, following)


def typed(handler: Callable[..., Any], **annotations: Any) -> Callable[..., Any]:
    """Give a handler of the factory below the types of its kind: what Litestar decodes and documents."""
    handler.__annotations__.update(annotations)
    return handler


def with_filters(names: tuple[str, ...]) -> type[OpenApiOperation]:
    """An OpenAPI operation that lists the filters as query parameters."""

    @dataclass
    class Filtered(OpenApiOperation):
        def __post_init__(self) -> None:
            text = Schema(type=OpenAPIType.STRING)
            extra = [
                OpenApiParameter(name=name, param_in="query", schema=text, description=f"Only with this `{name}`.")
                for name in names
            ]
            self.parameters = [*(self.parameters or []), *extra]

    return Filtered


def collection(kind: Kind[T, B], *more: Any) -> Router:
    """The routes of `kind`, and `more` handlers beneath the same path."""
    noun, named = kind.noun, f"{kind.title}s"

    async def index(
        request: Request[Any, Any, Any], caller: CallerDependency, after: After = "", limit: PageLimit = 100
    ) -> Page[Any]:
        return await page(kind.repository(caller.store), request, kind.filters, after, limit)

    async def create(caller: CallerDependency, data: Any) -> Response[Any]:
        item = kind.make(caller, data, None)
        if kind.creating is not None:
            await kind.creating(caller, item)
        made = await kind.repository(caller.store).create(item, caller.actor)
        await caller.live()
        location = f"/admin/v1{kind.path.replace('{org:str}', caller.org)}/{made.name}"  # type: ignore[attr-defined]
        return answer(made, status=201, location=location, remarks=await remarks(caller, made))

    async def read(caller: CallerDependency, key: FromPath[str]) -> Response[Any]:
        return answer(await kind.repository(caller.store).get(key))

    async def replace(
        caller: CallerDependency, key: FromPath[str], data: Any, if_match: IfMatch = ""
    ) -> Response[Any]:
        repository = kind.repository(caller.store)
        current = await repository.get(key)
        expected = expected_version(if_match, current.version)  # type: ignore[attr-defined]
        item = kind.make(caller, data, current)
        if kind.replacing is not None:
            await kind.replacing(caller, current, item)
        made = await repository.replace(item, expected, caller.actor)
        await caller.live()
        return answer(made, remarks=await remarks(caller, made))

    async def remarks(caller: Caller, item: Any) -> Sequence[str]:
        try:
            return await kind.remarks(caller, item) if kind.remarks is not None else ()
        except StoreUnavailableError:
            return ()  # it is written and served: nothing fails here

    async def remove(caller: CallerDependency, key: FromPath[str], if_match: IfMatch = "") -> None:
        repository = kind.repository(caller.store)
        current = await repository.get(key)
        expected = expected_version(if_match, current.version)  # type: ignore[attr-defined]
        if kind.deleting is not None:
            await kind.deleting(caller, key)
        await repository.delete(key, expected, caller.actor)
        if kind.deleted is not None:
            await kind.deleted(caller, key)
        await caller.live()

    one = Response[kind.model]  # type: ignore[name-defined]
    body = Annotated[kind.body, BodyKwarg()]  # type: ignore[name-defined]
    needs = {verb: Operation(f"{noun}.{verb}") for verb in ("list", "create", "read", "update", "delete")}
    return Router(
        path=kind.path,
        tags=[named],
        route_handlers=[
            get(
                "/",
                **operation(needs["list"], f"list{named}", query=True, summary=f"List {noun}s"),
                operation_class=with_filters(kind.filters),
            )(typed(index, **{"return": Page[kind.model]})),  # type: ignore[name-defined]
            post(
                "/",
                **operation(
                    needs["create"],
                    f"create{kind.title}",
                    body=True,
                    conflict=True,
                    summary=f"Create a {noun}",
                ),
            )(typed(create, data=body, **{"return": one})),
            get("/{key:str}", **operation(needs["read"], f"get{kind.title}", summary=f"Read one {noun}"))(
                typed(read, **{"return": one})
            ),
            put(
                "/{key:str}",
                **operation(
                    needs["update"],
                    f"replace{kind.title}",
                    body=True,
                    conditional=True,
                    summary=f"Replace a {noun}",
                ),
            )(typed(replace, data=body, **{"return": one})),
            delete(
                "/{key:str}",
                **operation(needs["delete"], f"delete{kind.title}", conditional=True, summary=f"Delete a {noun}"),
            )(remove),
            *more,
        ],
    )
