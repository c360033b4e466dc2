"""Power loss: the real store on a disk that keeps what was flushed and tears, drops and reorders what was not."""
