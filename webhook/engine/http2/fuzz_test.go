package http2_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/proxy"
)

// Whatever a client and a backend send as frames, the engine must end: no panic, no goroutine that is left, and no
// stream that the other side was not told of.
func FuzzHTTP2(f *testing.F) {
	var seed bytes.Buffer
	fr := http2.NewFramer(&seed, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, kv := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {":authority", "a"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]})
	}
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = fr.WriteData(1, false, []byte("hello"))
	_ = fr.WriteData(1, true, nil)
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	_ = fr.WriteRSTStream(3, http2.ErrCodeCancel)
	_ = fr.WriteWindowUpdate(0, 100)
	_ = fr.WritePing(false, [8]byte{})
	var answer bytes.Buffer
	fr = http2.NewFramer(&answer, nil)
	block.Reset()
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = fr.WriteSettings()
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = fr.WriteData(1, true, []byte("hello"))
	_ = fr.WriteGoAway(1, http2.ErrCodeNo, nil)
	f.Add(seed.Bytes(), answer.Bytes())
	f.Fuzz(func(t *testing.T, client, backend []byte) {
		e := proxy.New(engine.Options{Linger: 50 * time.Millisecond})
		theirs, ours := net.Pipe()
		d := &enginetest.ByHeader{App: engine.Backend{ID: "app", Dial: pipeTo(backend)}}
		over := make(chan struct{})
		go func() {
			defer close(over)
			e.ServeConn(context.Background(), ours, d)
		}()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_ = theirs.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(theirs, http2.ClientPreface)
		_, _ = theirs.Write(client)
		_ = theirs.Close()
		select {
		case <-over:
		case <-time.After(enginetest.StepTimeout):
			t.Fatal("the engine has not ended")
		}
		if n := e.Stats.Open.Load(); n != 0 {
			t.Fatalf("%d connections are open", n)
		}
	})
}

// pipeTo dials a backend that sends b and reads what comes until then.
func pipeTo(b []byte) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		theirs, ours := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		go func() {
			_, _ = theirs.Write(b)
			_ = theirs.Close()
		}()
		return ours, nil
	}
}
