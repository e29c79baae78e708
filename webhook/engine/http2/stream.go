package http2

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

// stream is one request and its response: a stream of the client and one of a backend. The relay's mutex guards it.
type stream struct {
	r        *relay
	id       uint32 // of the client's stream
	decision engine.Decision
	next     int                 // index of the backend to try now
	head     []hpack.HeaderField // of the request; kept after it was sent while it may be sent again
	size     int                 // of head, in bytes
	method   string
	grpc     bool
	extended bool // CONNECT for another protocol: RFC 8441

	up       *upstream // where it waits or goes
	toUp     outgoing
	toClient outgoing

	request   requestState
	remaining int64 // bytes of the declared length still to come; -1: none declared
	answered  answerState

	insert   *engine.Inserter // into the response's body, until it is made; nil: none
	inserted int              // bytes queued for the client that did not come from the backend

	fromClient, fromUp     granting
	clientClosed, upClosed bool // nothing more is received from or sent to that side
}

// requestState is how much of a request was received.
type requestState uint8

const (
	requestStarted requestState = iota
	requestWhole
)

// requestAfter returns the state after a frame, which ended the stream or did not.
func requestAfter(ended bool) requestState {
	if ended {
		return requestWhole
	}
	return requestStarted
}

// answerState is the progress of a response, from the backend or from the engine. It never goes back.
type answerState uint8

const (
	answerNone     answerState = iota
	answerReceived             // the backend has responded with anything
	answerStarted              // the final response's head was sent to the client
	answerWhole                // received completely
)

// request opens a stream for a request.
func (r *relay) request(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	switch {
	case id%2 == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case id <= r.last:
		// The stream is closed. If the client has not read its reset yet, this is no error, but that is not known.
		if !r.budget.spend() {
			return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
		return r.closedStream(f)
	}
	r.last = id
	if f.HasPriority() && f.Priority.StreamDep == id {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	if r.final || len(r.client.streams) >= int(r.maxStreams) {
		r.client.rst(id, http2.ErrCodeRefusedStream)
		if !r.budget.spend() {
			return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
		return nil
	}
	st := &stream{
		r: r, id: id, head: f.Fields, remaining: -1, request: requestAfter(f.StreamEnded()),
		fromClient: granting{may: streamWindow}, fromUp: granting{may: streamWindow},
	}
	st.toClient = outgoing{stream: st, conn: r.client, id: id, window: r.client.initial}
	st.toUp = outgoing{stream: st, end: st.request == requestWhole}
	if !f.Truncated {
		if err := st.checkHead(f); err != nil {
			return err
		}
	}
	r.client.streams[id] = st
	if why := tooLarge(f); why != "" {
		r.engine.Stats.Malformed.Add(1)
		st.head = nil
		st.answer(&engine.Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: why})
		return nil
	}
	st.decision = r.decider.Decide(r.shown(f))
	d := &st.decision
	switch {
	case d.Refusal != nil:
		d.Observe(engine.Refused, nil)
		st.refuse(*d.Refusal, true)
	case d.Tunnel != nil:
		st.answer(&engine.Refusal{Status: http.StatusNotImplemented, Reason: "CONNECT is not served over HTTP/2"})
	default:
		st.head = editFields(st.head, &d.Edits)
		for _, hf := range st.head {
			st.size += int(hf.Size())
		}
		st.place(errors.New("there is no backend"))
	}
	return nil
}

// tooLarge returns why a head is too large; empty if it is not.
func tooLarge(f *http2.MetaHeadersFrame) string {
	switch {
	case f.Truncated:
		return message.ErrHeadLong.Reason
	case len(f.Fields) > message.MaxFields:
		return message.ErrHeadFields.Reason
	}
	return ""
}

// closedStream processes HEADERS on a closed stream.
func (r *relay) closedStream(f *http2.MetaHeadersFrame) error {
	if f.StreamEnded() && len(f.PseudoFields()) == 0 {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed} // trailers that crossed with a reset
	}
	return http2.ConnectionError(http2.ErrCodeStreamClosed)
}

// checkHead checks a request's head against RFC 9113, sections 8.2.2 and 8.3.1, as far as the framer does not.
func (st *stream) checkHead(f *http2.MetaHeadersFrame) error {
	malformed := http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	method, scheme, path := f.PseudoValue("method"), f.PseudoValue("scheme"), f.PseudoValue("path")
	protocol, authority := f.PseudoValue("protocol"), f.PseudoValue("authority")
	st.method, st.extended = method, protocol != ""
	switch {
	case method == http.MethodConnect && protocol == "":
		if scheme != "" || path != "" || authority == "" {
			return malformed
		}
	case scheme == "" || path == "" || !message.IsToken([]byte(method)) || protocol != "" && method != http.MethodConnect:
		return malformed
	case path[0] != '/' && path != "*" || !message.ValidTarget([]byte(path)):
		return malformed
	}
	for _, hf := range f.RegularFields() {
		switch hf.Name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return malformed
		case "te":
			if hf.Value != "trailers" {
				return malformed
			}
		case "content-type":
			st.grpc = strings.HasPrefix(hf.Value, "application/grpc")
		case "content-length":
			n, err := message.ParseLength([]byte(hf.Value))
			if err != nil || st.remaining >= 0 {
				return malformed
			}
			st.remaining = n
		}
	}
	if st.request == requestWhole && st.remaining > 0 {
		return malformed
	}
	return nil
}

// shown returns the head in the form that Deciders see.
func (r *relay) shown(f *http2.MetaHeadersFrame) *engine.Head {
	r.scratch = r.scratch[:0]
	size := 0
	for _, hf := range f.Fields {
		size += len(hf.Name) + len(hf.Value)
	}
	r.scratch = slices.Grow(r.scratch, size)
	keep := func(s string) []byte {
		at := len(r.scratch)
		r.scratch = append(r.scratch, s...)
		return r.scratch[at:len(r.scratch):len(r.scratch)]
	}
	h := &engine.Head{
		HTTP2: true, Method: keep(f.PseudoValue("method")), Target: keep(f.PseudoValue("path")),
		Authority: keep(f.PseudoValue("authority")), Fields: make([]engine.Field, 0, len(f.Fields)),
	}
	for _, hf := range f.RegularFields() {
		h.Fields = append(h.Fields, engine.Field{Name: keep(hf.Name), Value: keep(hf.Value)})
	}
	if len(h.Authority) == 0 {
		h.Authority = h.Get("host")
	}
	return h
}

// editFields returns fields with the edits e.
func editFields(fields []hpack.HeaderField, e *engine.Edits) []hpack.HeaderField {
	if e.Empty() {
		return fields
	}
	edited := make([]hpack.HeaderField, 0, len(fields)+len(e.Set))
	for _, f := range fields {
		if f.Name == ":path" && e.Target != nil {
			f.Value = string(e.Target)
		}
		if f.IsPseudo() || !e.Drops([]byte(f.Name)) {
			edited = append(edited, f)
		}
	}
	for _, f := range e.Set {
		edited = append(edited, hpack.HeaderField{Name: strings.ToLower(string(f.Name)), Value: string(f.Value)})
	}
	return edited
}

// place sends the request to the next backend. cause is why the previous one did not accept it.
func (st *stream) place(cause error) {
	d := &st.decision
	if st.next >= len(d.Backends) {
		d.Observe(engine.Refused, nil)
		r := d.Failure
		r.Reason += cause.Error()
		st.refuse(r, true)
		return
	}
	b := &d.Backends[st.next]
	up := st.r.ups[b.ID]
	if up == nil {
		up = st.r.connect(b, nil, nil)
	}
	if err := up.accept(st); err != nil {
		st.next++
		st.place(err)
		return
	}
	st.up = up
	up.openWaiting()
}

// backend returns the backend of the stream.
func (st *stream) backend() *engine.Backend { return &st.decision.Backends[st.next] }

// body processes DATA from the client, of n bytes with padding.
func (st *stream) body(f *http2.DataFrame, n int) error {
	data := f.Data()
	st.fromClient.may -= int64(n)
	var err error
	switch {
	case st.request == requestWhole:
		err = http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	case st.fromClient.may < 0:
		err = http2.StreamError{StreamID: st.id, Code: http2.ErrCodeFlowControl}
	case st.remaining >= 0 && (int64(len(data)) > st.remaining || f.StreamEnded() && int64(len(data)) != st.remaining):
		err = http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	if err != nil {
		st.r.client.usedUp(n)
		return err
	}
	if st.remaining >= 0 {
		st.remaining -= int64(len(data))
	}
	st.request = requestAfter(f.StreamEnded())
	if st.toUp.ended { // the backend wants no more
		st.r.client.usedUp(n)
		st.clientMayBeDone()
		return nil
	}
	_, _ = st.toUp.data.Write(data)
	st.used(&st.toUp, n-len(data)) // the padding
	st.toUp.end = st.request == requestWhole
	st.toUp.offer()
	st.clientMayBeDone()
	return nil
}

// trailers processes HEADERS from the client on an open stream.
func (st *stream) trailers(f *http2.MetaHeadersFrame) error {
	switch {
	case st.request == requestWhole:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	case !f.StreamEnded() || len(f.PseudoFields()) > 0 || f.Truncated || st.remaining > 0:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	st.request = requestWhole
	if !st.toUp.ended {
		st.toUp.trailer, st.toUp.end = f.Fields, true
		st.toUp.offer()
	}
	st.clientMayBeDone()
	return nil
}

func (st *stream) backendID() string {
	if st.next < len(st.decision.Backends) {
		return st.backend().ID
	}
	if n := len(st.decision.Backends); n > 0 {
		return st.decision.Backends[n-1].ID
	}
	return ""
}
