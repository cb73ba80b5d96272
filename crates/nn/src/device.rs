//! Devices by name, chosen at run time among the compiled-in backends.

use burn::tensor::Device;

use crate::Error;

/// The device called `name`, with automatic differentiation switched on.
///
/// `cpu` is Burn's Flex backend. `vulkan`, `cuda` and `metal`, optionally with an index as in `vulkan:0`, need the
/// cargo feature of the same name. [`Device::inner`] gives the same device without differentiation.
///
/// # Errors
/// The name is unknown, or the backend is not compiled in.
pub fn device(name: &str) -> Result<Device, Error> {
    let (kind, index) = match name.split_once(':') {
        None => (name, None),
        Some((kind, index)) => match index.parse::<usize>() {
            Ok(index) => (kind, Some(index)),
            Err(_) => return Err(fail(name, "the part after the colon must be a number, as in `vulkan:0`")),
        },
    };
    match kind {
        "cpu" if index.is_none() => Ok(Device::flex().autodiff()),
        "cpu" => Err(fail(name, "there is one CPU device, called `cpu`")),
        "vulkan" | "cuda" | "metal" => gpu(name, kind, index),
        _ => Err(fail(name, "unknown; the names are cpu, vulkan:N, cuda:N and metal")),
    }
}

/// Names of the device kinds compiled into this binary, `cpu` first.
#[must_use]
pub fn compiled_kinds() -> Vec<&'static str> {
    let mut kinds = vec!["cpu"];
    for (kind, compiled) in [
        ("vulkan", cfg!(feature = "vulkan")),
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
    ] {
        if compiled {
            kinds.push(kind);
        }
    }
    kinds
}

#[cfg_attr(not(feature = "gpu"), allow(unused_variables))]
fn gpu(name: &str, kind: &str, index: Option<usize>) -> Result<Device, Error> {
    #[cfg(any(feature = "vulkan", feature = "metal"))]
    let wgpu_kind =
        index.map_or(burn::tensor::DeviceKind::DefaultDevice, burn::tensor::DeviceKind::DiscreteGpu);
    match kind {
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(wgpu_kind).autodiff()),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(wgpu_kind).autodiff()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index.unwrap_or(0)).autodiff()),
        _ => Err(fail(
            name,
            &format!(
                "this binary was built without it; rebuild with `--features {kind}` or use `--device cpu`"
            ),
        )),
    }
}

fn fail(name: &str, remedy: &str) -> Error {
    Error::Device { name: name.to_owned(), remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_always_there_and_other_names_say_what_to_do() {
        assert!(device("cpu").unwrap().is_autodiff());
        assert!(device("cpu:1").unwrap_err().to_string().contains("`cpu`"));
        assert!(device("tpu").unwrap_err().to_string().contains("vulkan:N"));
        assert!(device("vulkan:x").unwrap_err().to_string().contains("number"));
        #[cfg(not(feature = "vulkan"))]
        assert!(device("vulkan:0").unwrap_err().to_string().contains("--features vulkan"));
    }
}
