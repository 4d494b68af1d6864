"""Does it help?  One small U-Net, taught in several ways by few patients, on patients unseen."""
