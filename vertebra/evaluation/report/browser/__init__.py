"""The browser of images: truth and two sides beside each other, drawn, sorted and filtered in the page."""
