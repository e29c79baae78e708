package http2

// Bounds that tests of whole connections go up to.
const (
	StreamWindow = streamWindow
	ConnWindow   = connWindow
	MaxHold      = maxHold
	MaxFrame     = maxFrame
	MaxHeads     = maxHeads
)
