//! What happens between a finished sum and C.

use super::pack::PANEL;
use super::tile::Rows;
use super::{load, store};
use crate::math;
use crate::simd::{LANES, Lanes};
use std::ops::Range;

/// Element-wise function of an epilogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `y = x`.
    #[default]
    Identity,
    /// `x * Phi(x)` with the normal distribution function (the erf form).
    Gelu,
    /// `x * sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
}

/// How the result `y` meets what C holds.
#[derive(Clone, Copy, Debug, Default)]
pub enum Combine<'a> {
    /// `C = y`.
    #[default]
    Store,
    /// `C = C + y`: C holds the residual.
    Add,
    /// `C = C + gate * y` with one rounding (adaLN): row `r` of C uses row `r / group` of `gate`.
    Gate {
        /// Gate values, rows of at least N values `stride` apart.
        gate: &'a [f32],
        /// Distance between gate rows; 0 uses one row for all.
        stride: usize,
        /// Rows of C that share a gate row, at least 1.
        group: usize,
    },
}

/// What happens to a sum before it reaches C: `combine(activation(sum + bias))`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[N]` values added to every row.
    pub bias: Option<&'a [f32]>,
    /// Function applied after the bias.
    pub activation: Activation,
    /// How C takes the result.
    pub combine: Combine<'a>,
}

impl<'a> Epilogue<'a> {
    /// The plain product.
    pub const NONE: Epilogue<'static> =
        Epilogue { bias: None, activation: Activation::Identity, combine: Combine::Store };

    /// Adds a bias `[N]`.
    pub fn bias(bias: &'a [f32]) -> Self {
        Self { bias: Some(bias), ..Self::NONE }
    }

    /// Applies `activation` after the bias.
    pub fn activate(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Adds the result to what C holds.
    pub fn add(self) -> Self {
        Self { combine: Combine::Add, ..self }
    }

    /// Adds the gated result to what C holds; see [`Combine::Gate`].
    pub fn gate(self, gate: &'a [f32], stride: usize, group: usize) -> Self {
        Self { combine: Combine::Gate { gate, stride, group }, ..self }
    }

    /// Whether C takes the result without its old values.
    pub(crate) fn stores(&self) -> bool {
        matches!(self.combine, Combine::Store)
    }

    pub(super) fn check(&self, m: usize, n: usize) {
        if let Some(bias) = self.bias {
            assert!(bias.len() >= n, "bias: {} values for {n} columns", bias.len());
        }
        if let Combine::Gate { gate, stride, group } = self.combine {
            assert!(group >= 1, "gate: group must be at least 1");
            let need = m.saturating_sub(1) / group * stride + n;
            assert!(gate.len() >= need, "gate: {} values, {m} rows of {n} take {need}", gate.len());
        }
    }

    /// The part of a gate for a tile's `rows` and its columns from `column` on, where each row has one of its own.
    #[inline(always)]
    pub(super) fn gate_rows(&self, rows: &Range<usize>, column: usize) -> Rows {
        match self.combine {
            Combine::Gate { gate, stride, group: 1 } => {
                Rows { at: gate[rows.start * stride + column..].as_ptr(), stride, count: rows.len() }
            }
            _ => Rows::NONE,
        }
    }
}

/// An [`Activation`] as a type: one loop for each, without a choice per element.
trait Function {
    fn apply<V: Lanes>(x: V) -> V;
}

/// How y meets c, as a type.
trait Meeting {
    fn meet<V: Lanes>(y: V, c: V, gate: V) -> V;
}

macro_rules! kinds {
    ($($Trait:ident::$f:ident: $Name:ident($($x:ident),*) => $y:expr;)*) => {$(
        struct $Name;
        impl $Trait for $Name {
            #[inline(always)]
            fn $f<V: Lanes>($($x: V),*) -> V {
                $y
            }
        }
    )*};
}

kinds! {
    Function::apply: Identity(x) => x;
    Function::apply: Gelu(x) => math::gelu(x);
    Function::apply: Silu(x) => math::silu(x);
    Function::apply: Relu(x) => V::zero().max(x);
    Function::apply: Relu6(x) => V::splat(6.0).min(V::zero().max(x));
    Meeting::meet: Replace(y, _c, _gate) => y;
    Meeting::meet: Sum(y, c, _gate) => c + y;
    Meeting::meet: Gated(y, c, gate) => gate.mul_add(y, c);
}

/// The epilogue of one tile, whose sums are used up.
#[inline(always)]
pub(crate) fn finish<V: Lanes>(
    rows: Range<usize>,
    columns: Range<usize>,
    sums: &mut [f32],
    c: &mut [f32],
    ldc: usize,
    epilogue: &Epilogue,
) {
    let (sums, _) = sums[..rows.len() * PANEL].as_chunks_mut();
    let bias = match epilogue.bias {
        Some(bias) => {
            let (left, right) = bias[columns.clone()].split_at(columns.len().min(LANES));
            Some([load::<V>(left), load(right)])
        }
        None => None,
    };
    match epilogue.activation {
        Activation::Identity if bias.is_none() => {}
        Activation::Identity => activate::<V, Identity>(sums, bias),
        Activation::Gelu => activate::<V, Gelu>(sums, bias),
        Activation::Silu => activate::<V, Silu>(sums, bias),
        Activation::Relu => activate::<V, Relu>(sums, bias),
        Activation::Relu6 => activate::<V, Relu6>(sums, bias),
    }
    match epilogue.combine {
        Combine::Store => combine::<V, Replace>(rows, columns, sums, c, ldc, &[], 0, 1),
        Combine::Add => combine::<V, Sum>(rows, columns, sums, c, ldc, &[], 0, 1),
        Combine::Gate { gate, stride, group } => {
            combine::<V, Gated>(rows, columns, sums, c, ldc, gate, stride, group);
        }
    }
}

/// Adds the bias, then applies `F`.
#[inline(always)]
fn activate<V: Lanes, F: Function>(sums: &mut [[f32; PANEL]], bias: Option<[V; 2]>) {
    for row in sums {
        let (halves, _) = row.as_chunks_mut();
        for (j, x) in halves.iter_mut().enumerate() {
            let y = V::load(x);
            F::apply(if let Some(bias) = bias { y + bias[j] } else { y }).store(x);
        }
    }
}

/// Brings the sums to C; without a gate, C stands in for it.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn combine<V: Lanes, M: Meeting>(
    rows: Range<usize>,
    columns: Range<usize>,
    sums: &[[f32; PANEL]],
    c: &mut [f32],
    ldc: usize,
    gate: &[f32],
    stride: usize,
    group: usize,
) {
    for (row, sums) in rows.zip(sums) {
        let c = &mut c[row * ldc + columns.start..row * ldc + columns.end];
        let (halves, _) = sums.as_chunks();
        let at = if group == 1 { row } else { row / group } * stride;
        let gate = if gate.is_empty() { None } else { Some(&gate[at + columns.start..at + columns.end]) };
        if columns.len() == PANEL {
            // Whole lanes: no choice per element.
            let (c, _) = c.as_chunks_mut();
            for (j, (c, sums)) in c.iter_mut().zip(halves).enumerate() {
                let old = V::load(c);
                let gate = if let Some(gate) = gate { load(&gate[j * LANES..][..LANES]) } else { old };
                M::meet(V::load(sums), old, gate).store(c);
            }
            continue;
        }
        for (j, (c, sums)) in c.chunks_mut(LANES).zip(halves).enumerate() {
            let old = load::<V>(c);
            let gate = if let Some(gate) = gate { load(&gate[j * LANES..][..c.len()]) } else { old };
            store(M::meet(V::load(sums), old, gate), c);
        }
    }
}
