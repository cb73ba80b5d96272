//! Writing frames as PNG files.

use std::path::Path;

use worldbench_core::Frame;

use super::RasterError;

/// Writes `frame` as an 8-bit RGB PNG, replacing an existing file.
///
/// # Errors
/// [`RasterError::FrameLength`] if data and size of the frame disagree, [`RasterError::Png`] if the file cannot be
/// written.
pub fn write_png(path: &Path, frame: &Frame) -> Result<(), RasterError> {
    let (width, height, len) = (frame.width, frame.height, frame.data.len());
    let (Ok(w), Ok(h), true) = (u32::try_from(width), u32::try_from(height), len == width * height * 3)
    else {
        return Err(RasterError::FrameLength { len, width, height });
    };
    let format = image::ImageFormat::Png;
    image::save_buffer_with_format(path, &frame.data, w, h, image::ExtendedColorType::Rgb8, format)
        .map_err(|source| RasterError::Png { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_named() {
        let path = Path::new("no-such-folder/frame.png");
        let message = write_png(path, &Frame::new(2, 2)).unwrap_err().to_string();
        assert!(message.contains("no-such-folder/frame.png"), "{message}");
    }

    #[test]
    fn a_short_frame_is_refused() {
        let frame = Frame { width: 2, height: 2, data: vec![0; 11] };
        let error = write_png(Path::new("short.png"), &frame).unwrap_err();
        assert!(matches!(error, RasterError::FrameLength { len: 11, .. }));
    }
}
