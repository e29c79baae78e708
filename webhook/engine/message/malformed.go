package message

import (
	"errors"
	"fmt"
	"io"
)

// MaxFields bounds the fields of a head: each takes far more memory than the four bytes that it may come in. Of the
// common servers that count, none takes more (Node.js: 2,000; Apache and Tomcat: 100).
const MaxFields = 2000

// A malformed error says what is wrong with a message.
type Malformed struct {
	Status int
	Reason string
}

// Error says what is wrong.
func (m *Malformed) Error() string { return m.Reason }

// What is wrong with a head that is read no further.
var (
	ErrHeadFields = &Malformed{431, "request head has too many fields"}
	ErrHeadSlow   = &Malformed{408, "request head took too long"}
	ErrHeadLong   = &Malformed{431, "request head is too long"}
)

// Malformedf returns what is answered by 400.
func Malformedf(format string, args ...any) error {
	return &Malformed{400, fmt.Sprintf(format, args...)}
}

// DescribeFailure says what a backend did that broke off.
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
