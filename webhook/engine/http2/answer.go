package http2

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

// answerHead processes HEADERS from the backend.
func (st *stream) answerHead(f *http2.MetaHeadersFrame) error {
	status := f.PseudoValue("status")
	end := f.StreamEnded()
	malformed := http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	switch {
	case st.answered == answerWhole:
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	case f.Truncated:
		return malformed
	case st.answered >= answerStarted: // trailers
		if !end || len(f.PseudoFields()) > 0 {
			return malformed
		}
		st.observeGRPC(f.Fields)
		st.answered = answerWhole
		st.weave(nil, true)
		st.toClient.trailer, st.toClient.end = f.Fields, true
		st.toClient.offer()
		st.upMayBeDone()
		return nil
	case len(status) != 3 || status[0] < '1' || status[0] == '1' && end:
		return malformed
	}
	st.answered = answerReceived
	if status[0] == '1' {
		st.r.client.headers(st.id, f.Fields, false)
		return nil
	}
	st.head = nil
	st.answered = answerStarted
	st.decision.ObserveAnswer(statusOf(status), st.backend())
	if end && status[0] < '5' {
		st.observeGRPC(f.Fields)
	}
	edits := st.decision.ReplyEdits(st.backend(), statusOf(status), func() []engine.Field {
		return shownFields(f.RegularFields())
	})
	if !end {
		st.startInsertion(&edits, f)
	}
	st.r.client.headers(st.id, editFields(f.Fields, &edits), end)
	if end {
		st.answered = answerWhole
		st.upMayBeDone()
		st.toClient.over()
	}
	return nil
}

// observeGRPC looks for a gRPC status in the end of a response: trailers, or a head without a body.
func (st *stream) observeGRPC(fields []hpack.HeaderField) {
	if !st.grpc {
		return
	}
	for i := range fields {
		if fields[i].Name == "grpc-status" {
			if grpcFailed(fields[i].Value) {
				st.decision.Observe(engine.Failed, st.backend())
			}
			return
		}
	}
}

// grpcFailed reports whether a gRPC status is the server's failure, not the caller's: those that OpenTelemetry's
// semantic conventions for gRPC count as errors of a server.
func grpcFailed(status string) bool {
	switch status {
	case "2", "4", "12", "13", "14", "15": // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
		return true
	}
	return false
}

// statusOf parses a status of three digits; 0 if it is invalid.
func statusOf(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func shownFields(fields []hpack.HeaderField) []engine.Field {
	size := 0
	for _, f := range fields {
		size += len(f.Name) + len(f.Value)
	}
	shown, text := make([]engine.Field, len(fields)), make([]byte, 0, size)
	keep := func(s string) []byte {
		at := len(text)
		text = append(text, s...)
		return text[at:len(text):len(text)]
	}
	for i, f := range fields {
		shown[i] = engine.Field{Name: keep(f.Name), Value: keep(f.Value)}
	}
	return shown
}

// answerBody processes DATA from the backend, of n bytes with padding.
func (st *stream) answerBody(f *http2.DataFrame, n int) error {
	data := f.Data()
	st.fromUp.may -= int64(n)
	var err error
	switch {
	case st.answered == answerWhole:
		err = http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	case st.fromUp.may < 0:
		err = http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	case st.answered < answerStarted:
		err = http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	}
	if err != nil {
		st.up.usedUp(n)
		return err
	}
	st.weave(data, f.StreamEnded())
	st.used(&st.toClient, n-len(data))
	if f.StreamEnded() {
		st.answered = answerWhole
		st.toClient.end = true
		st.upMayBeDone()
	}
	st.toClient.offer()
	return nil
}

// startInsertion prepares e's insertion into the response with head f, and adds its effect on the head to e.
func (st *stream) startInsertion(e *engine.Edits, f *http2.MetaHeadersFrame) {
	if e.Insert == nil || len(e.Insert.What) == 0 {
		return
	}
	for _, hf := range f.RegularFields() {
		if hf.Name == "content-length" {
			n, err := message.ParseLength([]byte(hf.Value))
			if err != nil {
				return
			}
			e.AddLength(n)
			break
		}
	}
	st.insert = &engine.Inserter{Insertion: *e.Insert}
}

// weave appends a part of the response's body, with the insertion, to what is sent to the client.
func (st *stream) weave(part []byte, last bool) {
	w := st.insert
	if w == nil {
		_, _ = st.toClient.data.Write(part)
		return
	}
	woven := w.Data(nil, part)
	if last {
		woven = w.Last(woven)
	}
	st.inserted += len(woven) - len(part)
	_, _ = st.toClient.data.Write(woven)
	if w.Placed {
		st.insert = nil
	}
}

// answer responds to the request itself. What the client still sends is dropped.
func (st *stream) answer(r *engine.Refusal) {
	st.closeUp()
	st.up = nil
	reason := engine.CleanReason(r.Reason)
	fields := []hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(r.Status)}}
	var body []byte
	switch {
	case st.grpc:
		fields = grpcFailure(grpcStatus(r.Status), reason)
	default:
		var mediaType string
		body, mediaType = r.Content()
		fields = append(fields, hpack.HeaderField{Name: "content-type", Value: mediaType},
			hpack.HeaderField{Name: "x-content-type-options", Value: "nosniff"},
			hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(len(body))})
		if st.method == http.MethodHead {
			body = nil
		}
	}
	if r.Reason != "" {
		fields = append(fields, hpack.HeaderField{Name: engine.ErrorHeader, Value: reason})
	}
	for _, f := range r.Fields {
		fields = append(fields, hpack.HeaderField{Name: strings.ToLower(string(f.Name)), Value: string(f.Value)})
	}
	st.answered = answerWhole
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

// wantNoMore tells the client, once it has its response, that the rest of its request is not wanted: RFC 9113, section
// 8.1.
func (st *stream) wantNoMore() {
	if st.request != requestWhole {
		no := http2.ErrCodeNo
		st.toClient.reset = &no
	}
}

// grpcStatus returns the gRPC status of a refusal. Authentication, permission and absence have their own. All others
// are UNAVAILABLE, which callers treat as temporary.
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

// grpcFailure returns the head of a failure without a body: the protocol's "Trailers-Only".
func grpcFailure(status, reason string) []hpack.HeaderField {
	return []hpack.HeaderField{
		{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"},
		{Name: "grpc-status", Value: status}, {Name: "grpc-message", Value: grpcMessage(reason)},
	}
}

// grpcMessage encodes a message for the gRPC protocol: it escapes everything but visible ASCII, and '%'.
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
