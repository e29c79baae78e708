package message

import (
	"errors"
	"fmt"
	"io"
)

// MaxFields bounds the fields of a head: each takes far more memory than the four bytes that may encode it. No common
// server with such a bound accepts more (Node.js: 2,000; Apache and Tomcat: 100).
const MaxFields = 2000

// A Malformed error describes what is wrong with a message.
type Malformed struct {
	Status int
	Reason string
}

// Error returns the reason.
func (m *Malformed) Error() string { return m.Reason }

// Errors of a head that is not read to its end.
var (
	ErrHeadFields = &Malformed{431, "request head has too many fields"}
	ErrHeadSlow   = &Malformed{408, "request head took too long"}
	ErrHeadLong   = &Malformed{431, "request head is too long"}
)

// Malformedf returns an error that is answered with 400.
func Malformedf(format string, args ...any) error {
	return &Malformed{400, fmt.Sprintf(format, args...)}
}

// DescribeFailure describes how a backend failed during a response.
func DescribeFailure(cause error) string {
	var m *Malformed
	switch {
	case errors.Is(cause, io.EOF):
		return "it ended the connection before it answered"
	case errors.As(cause, &m):
		return "its answer is malformed: " + m.Reason
	}
	return "it broke off before it answered: " + cause.Error()
}
