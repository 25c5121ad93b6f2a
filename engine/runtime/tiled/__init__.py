"""Translation of images larger than memory, in bands, with the result of translating the whole image."""
