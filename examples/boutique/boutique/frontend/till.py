"""The till: the form, the order, the letter."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from boutique.cart import Cart
from boutique.checkout import (
    CardDeclined,
    CartChanged,
    CartEmpty,
    Checkout,
    CountryNotServed,
    CurrencyUnknown,
    Order,
    OrderNotFound,
    OrderRefused,
    OrderStatus,
    OrderUnfinished,
    OutOfStock,
    ProductNotFound,
)
from boutique.emails import Emails
from boutique.frontend.forms import EXAMPLE, CheckoutForm
from boutique.frontend.render import page
from boutique.frontend.shopping import goes_with, view_of
from boutique.frontend.visit import cart_of, form, head, redirect, shopper_of
from boutique.money import Money
from boutique.shipping import Shipping
from seamline import CallError, DeadlineExceeded, Overloaded, Unavailable, use

_cart, _checkout, _emails, _shipping = use(Cart), use(Checkout), use(Emails), use(Shipping)


async def checkout(request: Request) -> Response:
    return await _till(request, CheckoutForm(EXAMPLE))


async def place_order(request: Request) -> Response:
    fields, shopper = await form(request), shopper_of(request)
    if shopper is None:
        return redirect(request, "/cart")
    typed = CheckoutForm(fields)
    purchase = typed.purchase(shopper)
    if purchase is None:
        return await _till(request, typed, 422)
    try:
        # The same bag sent twice, by a double click or a reload, is the same order.
        placed = await (await _checkout()).place(f"{shopper}/{purchase.cart_version}", purchase)
    except CardDeclined as declined:
        typed.declined(declined.reason)
        return await _till(request, typed, 422)
    except OutOfStock:
        return redirect(request, "/cart?notice=stock")
    except (CartChanged, CartEmpty, ProductNotFound):
        return redirect(request, "/cart?notice=changed")
    except (CountryNotServed, CurrencyUnknown) as fault:
        typed.refused(fault.message, "Please choose again in your bag.")
        return await _till(request, typed, 422)
    except OrderRefused:
        typed.refused("We cannot take this order.", "Nothing was charged. Write to us if that is a mistake.")
        return await _till(request, typed, 422)
    except OrderUnfinished as unfinished:
        if await _begun(unfinished.order_id):
            return redirect(request, f"/order/{unfinished.order_id}")
        return await _silence(request, typed)
    except (Unavailable, Overloaded, DeadlineExceeded):
        return await _silence(request, typed)
    return redirect(request, f"/order/{placed.id}")


async def _begun(order_id: str) -> bool:
    """Whether there is an order to look at, which goes on by itself."""
    try:
        await (await _checkout()).order(order_id)
    except (OrderNotFound, CallError):
        return False
    return True


async def _silence(request: Request, typed: CheckoutForm) -> Response:
    typed.refused(
        "The till did not answer in time.",
        "Send the form once more: the same bag is never charged twice.",
    )
    return await _till(request, typed, 503)


async def order(request: Request) -> Response:
    placed = await (await _checkout()).order(request.path_params["order_id"])
    if placed.status is not OrderStatus.PLACED:
        return await _waiting_or_undone(request, placed)
    shipping = await _shipping()
    stops = [stop async for stop in shipping.route(placed.address.country)]
    return page(
        "order.html",
        await head(request),
        order=placed,
        rows=_rows(placed),
        stops=stops,
        others=await goes_with(tuple(line.product_id for line in placed.lines)),
    )


async def _waiting_or_undone(request: Request, order: Order) -> Response:
    return page(
        "waiting.html",
        await head(request),
        order=order,
        rows=_rows(order),
        undone=order.status is OrderStatus.UNDONE,
        in_review=order.status is OrderStatus.IN_REVIEW,
    )


async def letter(request: Request) -> Response:
    order_id = request.path_params["order_id"]
    written = await (await _emails()).letter(order_id)
    return page(
        "letter.html", await head(request), letter=written, back=f"/order/{order_id}", back_to="Back to the order"
    )


async def reminder(request: Request) -> Response:
    shopper = shopper_of(request)
    contents = await cart_of(request)
    written = await (await _emails()).reminder(shopper, contents.version) if shopper else None
    if written is None:
        return redirect(request, "/cart")
    return page("letter.html", await head(request, contents), letter=written, back="/cart", back_to="Back to the bag")


async def _till(request: Request, typed: CheckoutForm, status: int = 200) -> Response:
    bag = await view_of(request)
    if not bag.items:
        return redirect(request, "/cart")
    rows = [(f"{item.quantity} \N{MULTIPLICATION SIGN} {item.product.name}", item.sum) for item in bag.items]
    return page(
        "checkout.html",
        await head(request, bag.contents),
        status=status,
        form=typed,
        rows=[*rows, (f"Shipping to {bag.country.name}", bag.shipping)],
        total=bag.total,
        country=bag.country,
        version=bag.contents.version,
    )


def _rows(placed: Order) -> list[tuple[str, Money]]:
    rows = [
        (f"{line.quantity} \N{MULTIPLICATION SIGN} {line.name}", line.price * line.quantity) for line in placed.lines
    ]
    return [*rows, ("Shipping", placed.shipping)]
