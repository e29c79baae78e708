package proxy

// SpeaksFirst says whether it is remembered that the default backend spoke before its client.
func (e *Engine) SpeaksFirst() bool { return e.speaksFirst.Load() }
