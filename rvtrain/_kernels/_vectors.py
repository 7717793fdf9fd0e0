"""Numbers, vectors and addresses, for functions that emit vector instructions (`emitted`)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

_REALS: dict[Any, np.dtype[Any]] = {ir.FloatType(): np.dtype(np.float32), ir.DoubleType(): np.dtype(np.float64)}
_LLVM_OF = {dtype: kind for kind, dtype in _REALS.items()}


def _operator(of_integers: str, of_floats: str | None = None, *relation: str) -> Callable[["Value", Any], "Value"]:
    def method(self: "Value", other: Any) -> "Value":
        name = of_floats if of_floats and self.dtype.kind == "f" else of_integers
        operation = getattr(self.builder, name)
        return Value(self.builder, operation(*relation, self.llvm, self.like(other)))

    return method


class Value:
    """A number or a vector of numbers, in a register.

    Operators work element by element, as in NumPy, and in the order written, without fastmath. `//`, `%` and `>>`
    treat integers as unsigned, comparisons as signed.
    """

    def __init__(self, builder: Any, llvm: Any) -> None:
        self.builder, self.llvm = builder, llvm

    @property
    def lanes(self) -> int | None:
        """Number of elements of a vector; None for a single number."""
        return self.llvm.type.count if isinstance(self.llvm.type, ir.VectorType) else None

    @property
    def dtype(self) -> np.dtype:
        """Type of the number, or of the elements of the vector."""
        kind = self.llvm.type if self.lanes is None else self.llvm.type.element
        if kind in _REALS:
            return _REALS[kind]
        return np.dtype(bool if kind.width == 1 else f"i{kind.width // 8}")

    def like(self, other: Any) -> Any:
        """The LLVM value of `other`: its own if it is a `Value`, else a constant of this value's type."""
        if isinstance(other, Value):
            return other.llvm
        return ir.Constant(self.llvm.type, other if self.lanes is None else [other] * self.lanes)

    def astype(self, dtype: Any) -> "Value":
        """The same numbers in another type: integers to floats, or to another width of the same kind."""
        old, new = self.dtype, np.dtype(dtype)
        if old == new:
            return self
        if old.kind == new.kind:
            wider, narrower = ("sext", "trunc") if old.kind == "i" else ("fpext", "fptrunc")
            name = wider if new.itemsize > old.itemsize else narrower
        else:
            name = "sitofp"
        return Value(self.builder, getattr(self.builder, name)(self.llvm, _llvm(new, self.lanes)))

    def view(self, dtype: Any) -> "Value":
        """The same bits as another type; a vector keeps its size in bytes, so its number of lanes may change."""
        new = np.dtype(dtype)
        lanes = self.lanes and self.lanes * self.dtype.itemsize // new.itemsize
        return Value(self.builder, self.builder.bitcast(self.llvm, _llvm(new, lanes)))

    def broadcast(self, lanes: int) -> "Value":
        """A vector whose elements all equal this number."""
        vector = ir.VectorType(self.llvm.type, lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        one = self.builder.insert_element(undefined, self.llvm, ir.IntType(32)(0))
        return Value(self.builder, one).shuffle(Value(self.builder, undefined), [0] * lanes)

    def shuffle(self, other: "Value", picks: Sequence[int]) -> "Value":
        """A vector of elements picked from this vector followed by the other, by their positions."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(picks)), list(picks))
        return Value(self.builder, self.builder.shuffle_vector(self.llvm, other.llvm, mask))

    def bits(self) -> "Value":
        """The truth values of a vector of at most 32 elements as bits of one number; the first is the lowest bit."""
        lanes = self.lanes or 1
        number = self.builder.bitcast(self.llvm, ir.IntType(lanes))
        return Value(self.builder, number if lanes == 32 else self.builder.zext(number, ir.IntType(32)))

    def unsigned(self, dtype: Any) -> "Value":
        """The same bits in a wider integer type, with zeros in front."""
        return Value(self.builder, self.builder.zext(self.llvm, _llvm(np.dtype(dtype))))

    def choose(self, one: "Value", other: "Value") -> "Value":
        """Elements of `one` where this truth value is true, of `other` where it is false."""
        return Value(self.builder, self.builder.select(self.llvm, one.llvm, other.llvm))

    __add__ = _operator("add", "fadd")
    __mul__ = _operator("mul", "fmul")
    __sub__ = _operator("sub", "fsub")
    __floordiv__ = _operator("udiv")
    __mod__ = _operator("urem")
    __lshift__ = _operator("shl")
    __rshift__ = _operator("lshr")
    __and__ = _operator("and_")
    __or__ = _operator("or_")
    __lt__ = _operator("icmp_signed", "fcmp_ordered", "<")
    __gt__ = _operator("icmp_signed", "fcmp_ordered", ">")
    __ge__ = _operator("icmp_signed", "fcmp_ordered", ">=")
    differs = _operator("icmp_unsigned", "fcmp_unordered", "!=")


class Place:
    """The address of an element of an array."""

    def __init__(self, builder: Any, llvm: Any) -> None:
        self.builder, self.llvm = builder, llvm

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""
        return Value(self.builder, ir.Constant(self.llvm.type.pointee, ir.Undefined)).dtype

    def __add__(self, count: Any) -> "Place":
        number = count.llvm if isinstance(count, Value) else cgutils.intp_t(count)
        return Place(self.builder, self.builder.gep(self.llvm, [number]))

    def _as(self, kind: Any) -> Any:
        return self.builder.bitcast(self.llvm, kind.as_pointer())

    def load(self, lanes: int | None = None) -> Value:
        """The element at this address, or a vector of `lanes` elements from it on."""
        place = self.llvm if lanes is None else self._as(_llvm(self.dtype, lanes))
        return Value(self.builder, self.builder.load(place, align=self.dtype.itemsize))

    def store(self, value: Value) -> None:
        """Write a number or a vector at this address."""
        self.builder.store(value.llvm, self._as(value.llvm.type), align=self.dtype.itemsize)

    def prefetch(self, for_writing: bool) -> None:
        """Begin to fetch the cache line of this address."""
        int32 = ir.IntType(32)
        hints = [int32(int(for_writing)), int32(3), int32(1)]  # 3: keep in all cache levels; 1: data cache
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, *[int32] * 3])
        fetch = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(fetch, [self._as(ir.IntType(8)), *hints])


class Array(Place):
    """A C-contiguous array: the address of its first element, and its shape."""

    def __init__(self, builder: Any, llvm: Any, shape: list[Value]) -> None:
        super().__init__(builder, llvm)
        self.shape = shape


class Emitter:
    """Emits constants, calls of LLVM intrinsics, loops and branches."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def constant(self, number: Any, dtype: Any = np.intp, lanes: int | None = None) -> Value:
        """A constant number, or a vector whose elements all equal it."""
        kind = _llvm(np.dtype(dtype), lanes)
        return Value(self.builder, ir.Constant(kind, number if lanes is None else [number] * lanes))

    def joined(self, numbers: Sequence[Value]) -> Value:
        """A vector of these numbers."""
        vector = ir.Constant(ir.VectorType(numbers[0].llvm.type, len(numbers)), ir.Undefined)
        for lane, number in enumerate(numbers):
            vector = self.builder.insert_element(vector, number.llvm, ir.IntType(32)(lane))
        return Value(self.builder, vector)

    def call(self, name: str, like: Value, *values: Value) -> Value:
        """Call an LLVM intrinsic whose result has the type of `like`."""
        kind = ir.FunctionType(like.llvm.type, [value.llvm.type for value in values])
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return Value(self.builder, self.builder.call(function, [value.llvm for value in values]))

    def run(self, name: str, *operands: Any) -> None:
        """Call an LLVM intrinsic without result; a Python integer is an immediate operand of 8 bits."""
        byte = ir.IntType(8)
        values = [byte(x) if isinstance(x, int) else x.llvm for x in operands]
        values = [self.builder.bitcast(x, byte.as_pointer()) if x.type.is_pointer else x for x in values]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), values)

    def room(self, dtype: Any, count: int) -> Place:
        """The address of `count` elements on the stack, at a multiple of the size of a cache line."""
        element = _llvm(np.dtype(dtype))
        with self.builder.goto_entry_block():
            array = self.builder.alloca(ir.ArrayType(element, count))
        array.align = 64
        return Place(self.builder, self.builder.bitcast(array, element.as_pointer()))

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a b + c, fused if the processor has the instruction."""
        size = f"f{8 * c.dtype.itemsize}"
        return self.call(f"llvm.fmuladd.{size if c.lanes is None else f'v{c.lanes}{size}'}", c, a, b, c)

    def total(self, vector: Value) -> Value:
        """The sum of the elements of a vector of floats, in their order."""
        count, size = vector.lanes or 1, f"f{8 * vector.dtype.itemsize}"
        zero = self.constant(-0.0, vector.dtype)
        return self.call(f"llvm.vector.reduce.fadd.v{count}{size}", zero, zero, vector)

    def two_products(self, a: Value, b: Value, c: Value, d: Value) -> Value:
        """a b + c d, with one product and the sum fused if the processor has the instruction."""
        fused = ("contract",)
        first, second = (self.builder.fmul(x.llvm, y.llvm, flags=fused) for x, y in ((a, b), (c, d)))
        return Value(self.builder, self.builder.fadd(first, second, flags=fused))

    def loop(
        self,
        first: Value,
        stop: Value,
        step: int,
        carried: Sequence[Any],
        body: Callable[..., Sequence[Any]],
        empty: bool = True,
    ) -> list[Any]:
        """Emit `for i in range(first, stop, step): carried = body(i, *carried)`; returns the last `carried`.

        `carried` holds values and places. With `empty=False` the range must not be empty, which saves the test before
        the loop.
        """
        builder, before = self.builder, self.builder.block
        head = builder.append_basic_block("loop")
        within = builder.append_basic_block("loop.body") if empty else head
        after = builder.append_basic_block("loop.after")
        builder.branch(head)
        builder.position_at_end(head)
        started = [first, *carried]
        phis = [builder.phi(value.llvm.type) for value in started]
        i, *values = (type(value)(builder, phi) for value, phi in zip(started, phis, strict=True))
        if empty:
            builder.cbranch((i < stop).llvm, within, after)
            builder.position_at_end(within)
        results = list(body(i, *values))
        more = i + step
        for phi, value, following in zip(phis, started, [more, *results], strict=True):
            phi.add_incoming(value.llvm, before)
            phi.add_incoming(following.llvm, builder.block)
        if empty:
            builder.branch(head)
        else:
            builder.cbranch((more < stop).llvm, head, after)
        builder.position_at_end(after)
        return values if empty else results

    def either(self, condition: Value, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Emit a branch: the instructions of `then` if the condition holds, else those of `otherwise`."""
        with self.builder.if_else(condition.llvm) as (if_so, if_not):
            with if_so:
                then()
            with if_not:
                otherwise()


def _llvm(dtype: np.dtype, lanes: int | None = None) -> Any:
    element = _LLVM_OF.get(dtype) or ir.IntType(1 if dtype.kind == "b" else 8 * dtype.itemsize)
    return element if lanes is None else ir.VectorType(element, lanes)
