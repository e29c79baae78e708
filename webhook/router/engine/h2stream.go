package engine

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Stream is one request and its answer: a stream of the client's and one of a backend's. Guarded by the relay's mutex.
type h2Stream struct {
	r        *h2
	id       uint32 // the client's
	decision Decision
	next     int                 // backend to try now
	head     []hpack.HeaderField // the request's; kept after it is out while it may be sent again
	size     int                 // of head, in bytes
	method   string
	grpc     bool
	extended bool // CONNECT for another protocol: RFC 8441

	up       *h2Up // where it waits or goes
	toUp     h2Half
	toClient h2Half

	asked bool  // the request is here whole
	left  int64 // of its declared length; -1: none declared
	heard bool  // the backend has answered anything
	begun bool  // the final answer's head is at the client
	told  bool  // the answer is here whole

	insert   *weaver // into the answer's body, until it is made; nil: nothing
	inserted int     // bytes that go out to the client and did not come from the backend

	fromClient, fromUp     int64 // what each peer may still send on the stream
	owedClient, owedUp     int64 // what it sent, and was used up, and was not granted anew
	clientClosed, upClosed bool  // nothing more comes from or goes to there
}

// request opens a stream for a request.
func (r *h2) request(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	switch {
	case id%2 == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case id <= r.last:
		// A stream that is over. If the client has not heard yet that it was reset, that is no error, but one can't know.
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
	st := &h2Stream{
		r: r, id: id, head: f.Fields, left: -1, asked: f.StreamEnded(),
		fromClient: streamWindow, fromUp: streamWindow,
	}
	st.toClient = h2Half{stream: st, conn: r.client, id: id, window: r.client.initial}
	st.toUp = h2Half{stream: st, end: st.asked}
	if !f.Truncated {
		if err := st.checkHead(f); err != nil {
			return err
		}
	}
	r.client.streams[id] = st
	if f.Truncated {
		r.e.Stats.Malformed.Add(1)
		st.answer(&Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: "request head is too long"})
		return nil
	}
	st.decision = r.decider.Decide(r.shown(f))
	d := &st.decision
	switch {
	case d.Refusal != nil:
		d.observe(Refused, nil)
		st.refuse(*d.Refusal, true)
	case d.Tunnel != nil:
		st.answer(&Refusal{Status: http.StatusNotImplemented, Reason: "CONNECT is not served over HTTP/2"})
	default:
		st.head = editFields(st.head, &d.Edits)
		for _, hf := range st.head {
			st.size += int(hf.Size())
		}
		st.place(errors.New("there is no backend"))
	}
	return nil
}

// closedStream answers HEADERS on a stream that is over.
func (r *h2) closedStream(f *http2.MetaHeadersFrame) error {
	if f.StreamEnded() && len(f.PseudoFields()) == 0 {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed} // trailers that crossed with a reset
	}
	return http2.ConnectionError(http2.ErrCodeStreamClosed)
}

// checkHead holds a request's head to RFC 9113, sections 8.2.2 and 8.3.1, as far as the framer does not.
func (st *h2Stream) checkHead(f *http2.MetaHeadersFrame) error {
	malformed := http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	method, scheme, path := f.PseudoValue("method"), f.PseudoValue("scheme"), f.PseudoValue("path")
	protocol, authority := f.PseudoValue("protocol"), f.PseudoValue("authority")
	st.method, st.extended = method, protocol != ""
	switch {
	case method == http.MethodConnect && protocol == "":
		if scheme != "" || path != "" || authority == "" {
			return malformed
		}
	case scheme == "" || path == "" || !isToken([]byte(method)) || protocol != "" && method != http.MethodConnect:
		return malformed
	case path[0] != '/' && path != "*" || !validTarget([]byte(path)):
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
			n, err := parseLength([]byte(hf.Value))
			if err != nil || st.left >= 0 {
				return malformed
			}
			st.left = n
		}
	}
	if st.asked && st.left > 0 {
		return malformed
	}
	return nil
}

// shown returns the head as Deciders see it.
func (r *h2) shown(f *http2.MetaHeadersFrame) *Head {
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
	h := &Head{
		HTTP2: true, Method: keep(f.PseudoValue("method")), Target: keep(f.PseudoValue("path")),
		Authority: keep(f.PseudoValue("authority")), Fields: make([]Field, 0, len(f.Fields)),
	}
	for _, hf := range f.RegularFields() {
		h.Fields = append(h.Fields, Field{keep(hf.Name), keep(hf.Value)})
	}
	if len(h.Authority) == 0 {
		h.Authority = h.Get("host")
	}
	return h
}

// editFields returns fields as e changes them.
func editFields(fields []hpack.HeaderField, e *Edits) []hpack.HeaderField {
	if e.empty() {
		return fields
	}
	edited := make([]hpack.HeaderField, 0, len(fields)+len(e.Set))
	for _, f := range fields {
		if f.Name == ":path" && e.Target != nil {
			f.Value = string(e.Target)
		}
		if f.IsPseudo() || !e.drops([]byte(f.Name)) {
			edited = append(edited, f)
		}
	}
	for _, f := range e.Set {
		edited = append(edited, hpack.HeaderField{Name: strings.ToLower(string(f.Name)), Value: string(f.Value)})
	}
	return edited
}

// place sends the request to the next backend there is to try. cause is why the one before did not take it.
func (st *h2Stream) place(cause error) {
	d := &st.decision
	if st.next >= len(d.Backends) {
		d.observe(Refused, nil)
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
	if !up.accept(st) {
		st.next++
		st.place(fmt.Errorf("%s does not read what it is sent", b.Addr))
		return
	}
	st.up = up
	up.openWaiting()
}

// backend returns the one that the stream is placed at.
func (st *h2Stream) backend() *Backend { return &st.decision.Backends[st.next] }

// body takes in DATA of the client's, of n bytes with padding.
func (st *h2Stream) body(f *http2.DataFrame, n int) error {
	data := f.Data()
	st.fromClient -= int64(n)
	var err error
	switch {
	case st.asked:
		err = http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	case st.fromClient < 0:
		err = http2.StreamError{StreamID: st.id, Code: http2.ErrCodeFlowControl}
	case st.left >= 0 && (int64(len(data)) > st.left || f.StreamEnded() && int64(len(data)) != st.left):
		err = http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	if err != nil {
		st.r.client.usedUp(n)
		return err
	}
	if st.left >= 0 {
		st.left -= int64(len(data))
	}
	st.asked = f.StreamEnded()
	if st.toUp.ended { // the backend has heard enough
		st.r.client.usedUp(n)
		st.clientMayBeDone()
		return nil
	}
	_, _ = st.toUp.data.Write(data)
	st.used(&st.toUp, n-len(data)) // the padding
	st.toUp.end = st.asked
	st.toUp.offer()
	st.clientMayBeDone()
	return nil
}

// trailers takes in HEADERS of the client's on a stream that is open.
func (st *h2Stream) trailers(f *http2.MetaHeadersFrame) error {
	switch {
	case st.asked:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	case !f.StreamEnded() || len(f.PseudoFields()) > 0 || f.Truncated || st.left > 0:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	st.asked = true
	if !st.toUp.ended {
		st.toUp.trailer, st.toUp.end = f.Fields, true
		st.toUp.offer()
	}
	st.clientMayBeDone()
	return nil
}

// answerHead takes in HEADERS of the backend's.
func (st *h2Stream) answerHead(f *http2.MetaHeadersFrame) error {
	status := f.PseudoValue("status")
	end := f.StreamEnded()
	malformed := http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	switch {
	case st.told:
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	case f.Truncated:
		return malformed
	case st.begun: // trailers
		if !end || len(f.PseudoFields()) > 0 {
			return malformed
		}
		st.observeGRPC(f.Fields)
		st.told = true
		st.weave(nil, true)
		st.toClient.trailer, st.toClient.end = f.Fields, true
		st.toClient.offer()
		st.upMayBeDone()
		return nil
	case len(status) != 3 || status[0] < '1' || status[0] == '1' && end:
		return malformed
	}
	st.heard = true
	if status[0] == '1' {
		st.r.client.headers(st.id, f.Fields, false)
		return nil
	}
	st.head = nil
	st.begun = true
	st.decision.observeAnswer(statusOf(status), st.backend())
	if end && status[0] < '5' {
		st.observeGRPC(f.Fields)
	}
	edits := st.decision.replyEdits(st.backend(), statusOf(status), func() []Field { return shownFields(f.RegularFields()) })
	if !end {
		st.startInsertion(&edits, f)
	}
	st.r.client.headers(st.id, editFields(f.Fields, &edits), end)
	if end {
		st.told = true
		st.upMayBeDone()
		st.toClient.over()
	}
	return nil
}

// observeGRPC looks for the status of gRPC in what ends an answer: trailers, or a head that is all of it.
func (st *h2Stream) observeGRPC(fields []hpack.HeaderField) {
	if !st.grpc {
		return
	}
	for i := range fields {
		if fields[i].Name == "grpc-status" {
			if grpcFailed(fields[i].Value) {
				st.decision.observe(Failed, st.backend())
			}
			return
		}
	}
}

// grpcFailed says whether a status of gRPC is the server's failure, and not the caller's: those that OpenTelemetry's semantic
// conventions for gRPC have a server count as errors.
func grpcFailed(status string) bool {
	switch status {
	case "2", "4", "12", "13", "14", "15": // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
		return true
	}
	return false
}

// statusOf reads a status of three digits; 0 where it is not.
func statusOf(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func shownFields(fields []hpack.HeaderField) []Field {
	size := 0
	for _, f := range fields {
		size += len(f.Name) + len(f.Value)
	}
	shown, text := make([]Field, len(fields)), make([]byte, 0, size)
	keep := func(s string) []byte {
		at := len(text)
		text = append(text, s...)
		return text[at:len(text):len(text)]
	}
	for i, f := range fields {
		shown[i] = Field{keep(f.Name), keep(f.Value)}
	}
	return shown
}

// answerBody takes in DATA of the backend's, of n bytes with padding.
func (st *h2Stream) answerBody(f *http2.DataFrame, n int) error {
	data := f.Data()
	st.fromUp -= int64(n)
	var err error
	switch {
	case st.told:
		err = http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	case st.fromUp < 0:
		err = http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	case !st.begun:
		err = http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	}
	if err != nil {
		st.up.usedUp(n)
		return err
	}
	st.weave(data, f.StreamEnded())
	st.used(&st.toClient, n-len(data))
	if f.StreamEnded() {
		st.told = true
		st.toClient.end = true
		st.upMayBeDone()
	}
	st.toClient.offer()
	return nil
}

// startInsertion makes ready the insertion of e into the answer whose head is f, and adds to e what that changes in the head.
func (st *h2Stream) startInsertion(e *Edits, f *http2.MetaHeadersFrame) {
	if e.Insert == nil || len(e.Insert.What) == 0 {
		return
	}
	for _, hf := range f.RegularFields() {
		if hf.Name == "content-length" {
			n, err := parseLength([]byte(hf.Value))
			if err != nil {
				return
			}
			e.addLength(n)
			break
		}
	}
	st.insert = &weaver{Insertion: *e.Insert}
}

// weave adds a part of the answer's body to what goes to the client, with what is inserted.
func (st *h2Stream) weave(part []byte, last bool) {
	w := st.insert
	if w == nil {
		_, _ = st.toClient.data.Write(part)
		return
	}
	woven := w.data(nil, part)
	if last {
		woven = w.last(woven)
	}
	st.inserted += len(woven) - len(part)
	_, _ = st.toClient.data.Write(woven)
	if w.placed {
		st.insert = nil
	}
}

// used notes that n bytes that were to go out by h are gone, and grants who sent them as many anew.
func (st *h2Stream) used(h *h2Half, n int) {
	if n == 0 {
		return
	}
	if h == &st.toUp {
		c := st.r.client
		c.usedUp(n)
		if st.owedClient += int64(n); st.owedClient >= streamWindow/2 && !st.asked && !st.clientClosed && !c.dead && !c.ending {
			_ = c.wr.WriteWindowUpdate(st.id, uint32(st.owedClient)) //nolint:gosec // at most streamWindow
			st.fromClient += st.owedClient
			st.owedClient = 0
			c.wake.Signal()
		}
		return
	}
	if st.up == nil {
		return // an answer of the engine's own
	}
	own := min(n, st.inserted)
	st.inserted -= own
	n -= own
	c := st.up.h2Conn
	c.usedUp(n)
	if st.owedUp += int64(n); st.owedUp >= streamWindow/2 && !st.told && !st.upClosed && !c.dead && !c.ending {
		_ = c.wr.WriteWindowUpdate(st.toUp.id, uint32(st.owedUp)) //nolint:gosec // at most streamWindow
		st.fromUp += st.owedUp
		st.owedUp = 0
		c.wake.Signal()
	}
}

// discard drops what was to go out by h.
func (st *h2Stream) discard(h *h2Half) {
	n := h.data.Len()
	h.data.Reset()
	h.data = bytes.Buffer{}
	h.ended = true
	st.used(h, n)
}

// halfEnded is called when the end of h is out.
func (st *h2Stream) halfEnded(h *h2Half) {
	if h == &st.toUp {
		st.upMayBeDone()
		return
	}
	if h.reset != nil {
		st.asked = true // nothing more is taken from the client
	}
	st.clientMayBeDone()
}

// clientMayBeDone closes the client's stream when both its halves are over.
func (st *h2Stream) clientMayBeDone() {
	if st.asked && st.toClient.ended {
		st.closeClient()
	}
}

func (st *h2Stream) closeClient() {
	if st.clientClosed {
		return
	}
	st.clientClosed = true
	delete(st.r.client.streams, st.id)
	st.r.endIfOver()
}

// upMayBeDone closes the backend's stream when both its halves are over.
func (st *h2Stream) upMayBeDone() {
	if st.told && st.toUp.ended {
		st.closeUp()
	}
}

// closeUp ends the stream at the backend, wherever it is there.
func (st *h2Stream) closeUp() {
	if st.upClosed || st.up == nil {
		return
	}
	st.upClosed = true
	st.up.closed(st)
}

// abandon ends a stream that the client has ended, or that ended with it.
func (st *h2Stream) abandon(code http2.ErrCode) {
	st.asked = true
	st.discard(&st.toClient)
	if st.up != nil && !st.upClosed {
		if st.toUp.id != 0 {
			st.up.rst(st.toUp.id, code)
		}
		st.discard(&st.toUp)
		st.closeUp()
	}
	st.closeClient()
}

// refuse ends a stream that no backend answers. unseen says that none has seen the request.
func (st *h2Stream) refuse(r Refusal, unseen bool) {
	if r.Status == 0 {
		st.breakOff(unseen)
		return
	}
	st.answer(&r)
}

// answer answers by itself. What the client still sends is not wanted.
func (st *h2Stream) answer(r *Refusal) {
	st.closeUp()
	st.up = nil
	reason := cleanReason(r.Reason)
	fields := []hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(r.Status)}}
	var body []byte
	switch {
	case st.grpc:
		fields = grpcFailure(grpcStatus(r.Status), reason)
	default:
		var mediaType string
		body, mediaType = r.content()
		fields = append(fields, hpack.HeaderField{Name: "content-type", Value: mediaType},
			hpack.HeaderField{Name: "x-content-type-options", Value: "nosniff"},
			hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(len(body))})
		if st.method == http.MethodHead {
			body = nil
		}
	}
	if r.Reason != "" {
		fields = append(fields, hpack.HeaderField{Name: errorHeader, Value: reason})
	}
	for _, f := range r.Fields {
		fields = append(fields, hpack.HeaderField{Name: strings.ToLower(string(f.Name)), Value: string(f.Value)})
	}
	st.begun, st.told = true, true
	st.discard(&st.toUp)
	st.wantNoMore()
	st.r.client.headers(st.id, fields, len(body) == 0)
	_, _ = st.toClient.data.Write(body)
	st.toClient.end = true
	if len(body) == 0 {
		st.toClient.over()
		return
	}
	st.toClient.offer()
}

// wantNoMore has the client told, once it has its answer, that the rest of its request is not wanted: RFC 9113, section 8.1.
func (st *h2Stream) wantNoMore() {
	if !st.asked {
		no := http2.ErrCodeNo
		st.toClient.reset = &no
	}
}

// grpcStatus returns the status of gRPC for a refusal: those of who the caller is and what he asks for have their own. All others
// are UNAVAILABLE, which callers take for one that may pass.
func grpcStatus(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "16" // UNAUTHENTICATED
	case http.StatusForbidden:
		return "7" // PERMISSION_DENIED
	case http.StatusNotFound, http.StatusGone:
		return "5" // NOT_FOUND
	}
	return "14" // UNAVAILABLE
}

// grpcFailure returns the head of an answer that is a failure by itself: the protocol's "Trailers-Only".
func grpcFailure(status, reason string) []hpack.HeaderField {
	return []hpack.HeaderField{
		{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"},
		{Name: "grpc-status", Value: status}, {Name: "grpc-message", Value: grpcMessage(reason)},
	}
}

// grpcMessage encodes a message as the gRPC protocol has it: visible ASCII but '%' stands for itself.
func grpcMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// lost ends a stream whose backend broke off, or makes no sense. cause says how.
func (st *h2Stream) lost(cause error) {
	st.decision.observe(Broken, st.backend())
	st.discard(&st.toUp)
	st.closeUp()
	r := st.decision.Failure
	r.Reason += broke(cause)
	switch {
	case st.told: // only the request was cut, and nobody waits for it
		st.wantNoMore()
	case !st.begun:
		st.refuse(r, false)
	case st.grpc:
		st.told = true
		st.toClient.trailer = grpcFailure(grpcStatus(r.Status), cleanReason(r.Reason))[2:]
		st.toClient.end = true
		st.wantNoMore()
		st.toClient.offer()
	default:
		st.breakOff(false)
	}
}

// breakOff ends a stream the way it would end without the engine between: with the connection, unless other streams on it
// go elsewhere. unseen says that the request reached nobody.
func (st *h2Stream) breakOff(unseen bool) {
	r := st.r
	// A client that is being told to go elsewhere can have opened this stream before it heard of it: then it may try again.
	alone := !unseen || !r.leaving
	for _, other := range r.client.streams {
		alone = alone && (other == st || other.up != nil && other.backend().ID == st.backendID())
	}
	if alone {
		reset(r.client.conn)
		r.client.kill()
		return
	}
	code := http2.ErrCodeInternal
	if unseen {
		code = http2.ErrCodeRefusedStream
	}
	r.client.rst(st.id, code)
	st.abandon(http2.ErrCodeCancel)
	r.shutdown()
}

func (st *h2Stream) backendID() string {
	if st.next < len(st.decision.Backends) {
		return st.backend().ID
	}
	if n := len(st.decision.Backends); n > 0 {
		return st.decision.Backends[n-1].ID
	}
	return ""
}
