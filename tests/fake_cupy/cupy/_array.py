"""Arrays, which refuse what those of CuPy refuse."""

import ctypes
import os
import warnings

import numpy as np

from cupy._device import (
    PEER_ACCESS,
    THREAD,
    Device,
    MemoryPointer,
    alloc,
    count,
    get_current_stream,
    launch,
    refuse_while_capturing,
)

SCALARS = (bool, int, float, complex, np.generic)


class PerformanceWarning(RuntimeWarning):
    """Something works, but slowly."""

    __module__ = "cupy._util"


def view_of(ptr, shape, strides, dtype):
    """The numbers at an address, as NumPy sees them."""
    dtype = np.dtype(dtype)
    if 0 in shape:
        return np.empty(shape, dtype)
    low = sum(min(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True))
    high = sum(max(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True)) + dtype.itemsize
    buffer = (ctypes.c_char * (high - low)).from_address(ptr + low)
    return np.ndarray(shape, dtype, buffer, -low, strides)


class Flags:
    """How an array lies in memory."""

    def __init__(self, view):
        self.c_contiguous, self.f_contiguous = view.flags.c_contiguous, view.flags.f_contiguous
        self.owndata = False

    def __getitem__(self, name):
        return getattr(self, name.lower())


def refuse(value, where):
    """Fail as CuPy does with what is neither an array of its own nor a scalar."""
    raise TypeError(f"Unsupported type {type(value)} (in {where})")


class ndarray:  # noqa: N801
    """An array on a device. Its memory can be read as NumPy sees it, by `_raw` alone."""

    __slots__ = ("__weakref__", "base", "data", "dtype", "shape", "strides")
    __array_priority__ = 100

    def __init__(self, shape, dtype=float, memptr=None, strides=None, base=None):
        self.shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(map(int, shape))
        self.dtype = np.dtype(dtype)
        if self.dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {self.dtype}")
        if strides is None:
            strides, step = [], self.dtype.itemsize
            for size in reversed(self.shape):
                strides.insert(0, step)
                step *= max(size, 1)
        self.strides = tuple(strides)
        self.data = alloc(self.nbytes) if memptr is None else memptr
        self.base = base

    size = property(lambda self: int(np.prod(self.shape, dtype=np.int64)))
    ndim = property(lambda self: len(self.shape))
    itemsize = property(lambda self: self.dtype.itemsize)
    nbytes = property(lambda self: self.size * self.dtype.itemsize)
    device = property(lambda self: Device(self.data.device_id))
    flags = property(lambda self: Flags(self._raw()))

    @property
    def __cuda_array_interface__(self):
        strides = None if self.flags.c_contiguous else self.strides
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "version": 3,
            "strides": strides,
            "data": (self.data.ptr, False),
            "stream": 1,
        }

    def __dlpack_device__(self):
        return 2, self.data.device_id

    def __array_namespace__(self, api_version=None):
        import cupy

        return cupy

    def __array__(self, *_, **__):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__":
            return NotImplemented
        return apply(ufunc.__name__, ufunc, *inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        import cupy

        for a in [*args, *kwargs.values()]:
            if isinstance(a, np.ndarray):
                refuse(a, function.__name__)
        return getattr(cupy, function.__name__)(*args, **kwargs)

    def _raw(self):
        return view_of(self.data.ptr, self.shape, self.strides, self.dtype)

    def _where(self):
        """The array as work finds it, without keeping it alive."""
        return self.data.ptr, self.shape, self.strides, self.dtype

    def _like_view(self, view):
        pointer = MemoryPointer.__new__(MemoryPointer)
        pointer.mem, pointer.device_id = self.data.mem, self.data.device_id
        pointer.ptr = view.__array_interface__["data"][0] if view.size else self.data.ptr
        return ndarray(view.shape, view.dtype, pointer, view.strides, self if self.base is None else self.base)

    def get(self, stream=None, order="C", out=None, blocking=True):
        refuse_while_capturing("get")
        count("copies to the host")
        return np.array(self._raw(), order="C")

    def item(self, *index):
        return self.get().item(*index)

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def __index__(self):
        return self.get().__index__()

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self):
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self):
        return f"cupy.array({self._raw()!r})"

    def __str__(self):
        return str(self._raw())

    def __format__(self, spec):
        return format(self.get()[()] if not self.shape else self, spec)

    def _key(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        return tuple(k.get() if isinstance(k, ndarray) else k for k in keys)

    def _is_view(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        return all(k is None or k is Ellipsis or isinstance(k, (int, np.integer, slice)) for k in keys)

    def __getitem__(self, key):
        if self._is_view(key):
            view = self._raw()[key if isinstance(key, tuple) else (key,)]
            if not isinstance(view, np.ndarray):  # CuPy gives an array of no dimensions
                index = key if isinstance(key, tuple) else (key,)
                view = self._raw()[(*index, Ellipsis)]
            return self._like_view(view)
        keys = key if isinstance(key, tuple) else (key,)
        arrays = [k for k in keys if isinstance(k, ndarray)]
        if any(k.dtype == bool for k in arrays):
            return array(self.get()[self._key(key)])
        return apply("getitem", lambda a, *k: a[self._key_of(keys, k)], self, *arrays)

    @staticmethod
    def _key_of(keys, found):
        found = iter(found)
        return tuple(next(found) if isinstance(k, ndarray) else k for k in keys)

    def __setitem__(self, key, value):
        if not self._is_view(key):
            keys = key if isinstance(key, tuple) else (key,)
            arrays = [k for k in keys if isinstance(k, ndarray)]
            if isinstance(value, np.ndarray) and value.ndim:
                raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
            where = self._where()
            places = [a._where() for a in arrays]
            source = value._where() if isinstance(value, ndarray) else None

            def scatter():
                raw = view_of(*where)
                raw[self._key_of(keys, [view_of(*p) for p in places])] = view_of(*source) if source else value

            launch(scatter)
            return
        target = self[key]
        if isinstance(value, ndarray):
            check_device(value)
            check_device(target)
            source = value._where()
            shape = value.shape
            while len(shape) > target.ndim and shape[0] == 1:
                shape = shape[1:]
            np.broadcast_to(np.empty(shape, bool), target.shape)  # or fail now
            where = target._where()

            def copy():
                np.copyto(
                    view_of(*where),
                    view_of(*source).reshape(shape) if shape != source[1] else view_of(*source),
                    casting="unsafe",
                )

            launch(copy)
        else:
            target.fill(value)

    def fill(self, value):
        if isinstance(value, ndarray):
            if value.shape:
                raise ValueError("non-scalar cupy.ndarray cannot be used for fill")
            self[...] = value
            return
        value = np.asarray(value, dtype=self.dtype)
        if value.shape:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        check_device(self)
        where, number = self._where(), value[()]

        def fill():
            view_of(*where)[...] = number

        launch(fill)

    def reshape(self, *shape, order="C", copy=None):
        if order != "C":
            raise NotImplementedError
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        probe = self._raw()
        try:
            if 0 in self.shape:
                raise ValueError
            view = probe.reshape(shape, copy=False)
        except ValueError:
            return apply("reshape", lambda a: np.array(a.reshape(shape)), self)  # a copy, as in CuPy
        return self._like_view(view)

    def transpose(self, *axes):
        axes = axes[0] if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))) else axes
        return self._like_view(self._raw().transpose(axes or None))

    T = property(lambda self: self.transpose())
    mT = property(lambda self: self._like_view(self._raw().swapaxes(-1, -2)))  # noqa: N815

    def swapaxes(self, axis1, axis2):
        return self._like_view(self._raw().swapaxes(axis1, axis2))

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError("Shape or dtype mismatch")
        refuse_while_capturing("set")
        self._raw()[...] = arr

    def ravel(self, order="C"):
        return self.reshape(-1)

    def flatten(self, order="C"):
        return self.reshape(-1).copy()

    def squeeze(self, axis=None):
        return self._like_view(self._raw().squeeze(axis))

    def view(self, dtype=None):
        return self._like_view(self._raw() if dtype is None else self._raw().view(dtype))

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and np.dtype(dtype) == self.dtype:
            return self
        return apply("astype", lambda a: a.astype(dtype), self)

    def copy(self, order="C"):
        if self.data.device_id != THREAD.device:
            return self._copy_from_other_device()
        return apply("copy", lambda a: np.array(a, order="C"), self)

    def _copy_from_other_device(self):
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise NotImplementedError("CuPy cannot copy non-contiguous array between devices.")
        count("copies between devices")
        result = ndarray(self.shape, self.dtype, strides=self.strides)
        source, target = self._where(), result._where()
        launch(lambda: np.copyto(view_of(*target), view_of(*source)))
        return result

    def take(self, indices, axis=None, out=None):
        import cupy

        return cupy.take(self, indices, axis=axis)

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        return array, (self.get(),)


def check_device(a):
    """Refuse an array of another device than the current one; warn, as CuPy does, if devices access each other."""
    if a.data.device_id != THREAD.device:
        what = (
            f"The device where the array resides ({a.data.device_id}) is different from the current device "
            f"({THREAD.device})."
        )
        if not PEER_ACCESS:
            raise ValueError(f"{what} Peer access is unavailable between these devices.")
        warnings.warn(f"{what} Peer access has been activated automatically.", PerformanceWarning, stacklevel=3)


COMPUTE_TYPE_DEFAULT, COMPUTE_TYPE_TF32 = 1, 7
_compute_types = {}


def get_compute_type(dtype):
    """How products of a dtype are computed: as CUPY_TF32 says, until it is set."""
    tf32 = np.dtype(dtype) == np.float32 and int(os.environ.get("CUPY_TF32", "0")) > 0
    return _compute_types.setdefault(np.dtype(dtype), COMPUTE_TYPE_TF32 if tf32 else COMPUTE_TYPE_DEFAULT)


def set_compute_type(dtype, compute_type):
    """Change it, for all threads."""
    _compute_types[np.dtype(dtype)] = compute_type


def _matmul_of_now():
    """NumPy's product of factors in the precision that is set now."""
    tf32 = get_compute_type(np.float32) == COMPUTE_TYPE_TF32
    return lambda *factors: np.matmul(*(_rounded(a) if tf32 and a.dtype == np.float32 else a for a in factors))


def _rounded(a):
    """To 10 bits after the point, as cublas.cpp does it."""
    bits = np.ascontiguousarray(a).view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def apply(name, function, *args, out=None, **kwargs):
    """A NumPy function of arrays as work on the device: into `out`, or into a new array."""
    if name == "matmul":
        function = _matmul_of_now()
    dtype = kwargs.get("dtype")
    if dtype is not None:
        kwargs["dtype"] = np.dtype(dtype)
    for a in [*args, *kwargs.values()]:
        if isinstance(a, np.ndarray):
            refuse(a, name)
    places = []
    for a in args:
        if isinstance(a, ndarray):
            check_device(a)
            places.append(("array", a._where()))
        elif isinstance(a, (list, tuple)) and any(isinstance(x, ndarray) for x in a):
            if not all(isinstance(x, ndarray) for x in a):
                refuse(a, name)
            for x in a:
                check_device(x)
            places.append(("list", [x._where() for x in a]))
        else:
            places.append(("value", a))
    if any(isinstance(a, ndarray) for a in kwargs.values()):
        raise NotImplementedError(f"{name} with an array by name")

    def compute():
        given = [
            view_of(*p) if kind == "array" else [view_of(*q) for q in p] if kind == "list" else p for kind, p in places
        ]
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*given, **kwargs)

    first = compute()
    several = isinstance(first, tuple)
    firsts = first if several else (first,)
    outs = (out if isinstance(out, tuple) else (out,)) if out is not None else None
    if outs is None:
        outs = tuple(ndarray(np.shape(f), np.asarray(f).dtype) for f in firsts)
    else:
        for o, f in zip(outs, firsts, strict=True):
            check_device(o)
            if not np.can_cast(np.asarray(f).dtype, o.dtype, "same_kind"):
                raise TypeError(f"output cannot be cast from {np.asarray(f).dtype} to {o.dtype}")
            if np.shape(f) != o.shape:
                raise ValueError(f"Output shape {o.shape} is not {np.shape(f)}")
    wheres = [o._where() for o in outs]
    pending = [first] if get_current_stream().recorded is None else []  # what is recorded runs later

    def work():
        result = pending.pop() if pending else compute()
        for where, r in zip(wheres, result if several else (result,), strict=True):
            view_of(*where)[...] = r

    launch(work)
    return outs if several else outs[0]


def _binary(name, reverse=False):
    function = getattr(np, name)

    def method(self, other):
        if isinstance(other, np.ndarray):
            refuse(other, name)
        if not isinstance(other, (ndarray, *SCALARS)):
            return NotImplemented
        return apply(name, function, *((other, self) if reverse else (self, other)))

    return method


def _in_place(name):
    function = getattr(np, name)

    def method(self, other):
        if isinstance(other, np.ndarray):
            refuse(other, name)
        apply(name, function, self, other, out=self)
        return self

    return method


for _op, _name in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "matmul": "matmul",
    "lshift": "left_shift",
    "rshift": "right_shift",
}.items():
    setattr(ndarray, f"__{_op}__", _binary(_name))
    setattr(ndarray, f"__r{_op}__", _binary(_name, reverse=True))
    setattr(ndarray, f"__i{_op}__", _in_place(_name))
for _op, _name in {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}.items():
    setattr(ndarray, f"__{_op}__", _binary(_name))
ndarray.__hash__ = None
for _op, _name in {"neg": "negative", "invert": "invert", "abs": "absolute", "pos": "positive"}.items():
    setattr(ndarray, f"__{_op}__", (lambda f, n: lambda self: apply(n, f, self))(getattr(np, _name), _name))
for _name in ("sum", "max", "min", "all", "any", "mean", "std", "var", "prod", "argmax", "argmin", "cumsum", "conj"):
    setattr(
        ndarray,
        _name,
        (lambda f, n: lambda self, axis=None, **kw: apply(n, f, self, axis=axis, **kw))(getattr(np, _name), _name),
    )


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """An array of the current device, copied from the host where it is not there."""
    if isinstance(obj, ndarray):
        if obj.data.device_id != THREAD.device:
            obj, copy = obj.copy(), False
        if not copy and (dtype is None or obj.dtype == np.dtype(dtype)):
            return obj
        return obj.astype(obj.dtype if dtype is None else dtype)
    if isinstance(obj, (list, tuple)) and _has_array(obj):
        import cupy

        return cupy.stack([array(x, dtype=dtype) if not isinstance(x, ndarray) else x for x in obj])
    host = np.array(np.asarray(obj), dtype=dtype)  # a tensor of PyTorch takes no copy argument
    if host.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    if get_current_stream().recorded is not None:
        get_current_stream().invalid = True  # a copy from pageable memory is not allowed
        raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")
    count("copies to the device")
    result = ndarray(host.shape, host.dtype)
    result._raw()[...] = host
    return result


def _has_array(obj):
    return any(isinstance(x, ndarray) or (isinstance(x, (list, tuple)) and _has_array(x)) for x in obj)
