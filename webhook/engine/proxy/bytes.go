package proxy

import (
	"net"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// bytesSession is a client connection that is forwarded as bytes: only its two ends end it.
type bytesSession struct{ client, app net.Conn }

func (bytesSession) Drain() {}

func (bytesSession) Retire(func(string) bool) {}

func (b bytesSession) Kill() {
	_ = b.client.Close()
	_ = b.app.Close()
}

// passThrough relays bytes between the client and app, starting with what was already read from either.
func (e *Engine) passThrough(s *openConn, in *session.Buffer, app net.Conn, spoke []byte) {
	e.Stats.Raw.Add(1)
	e.setSpeaker(s, bytesSession{s.conn, app})
	session.Relay(s.conn, in.Bytes(), app, spoke)
}
