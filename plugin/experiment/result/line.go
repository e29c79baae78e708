package result

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// marker begins a line that holds a result. No other line of the probe's output begins like that: those of its log
// begin with "time=".
const marker = "kubectl-sandbox-result "

// Bounds, in bytes: of a line, which bounds the memory for reading a log, and of the JSON in it.
const (
	maxLine = 8 << 20
	maxJSON = 64 << 20
)

// ErrNone means that a log holds no result.
var ErrNone = errors.New("the log holds no result")

// Write writes v, a Load or a Contract, as one line: a marker, then base64 of the gzipped JSON. Several results may
// be written one after another, each more complete: the last one counts.
func Write[T Load | Contract](w io.Writer, v T) error {
	var line bytes.Buffer
	line.WriteString(marker)
	encoder := base64.NewEncoder(base64.StdEncoding, &line)
	zip := gzip.NewWriter(encoder)
	if err := json.NewEncoder(zip).Encode(v); err != nil {
		return err
	}
	if err := errors.Join(zip.Close(), encoder.Close()); err != nil {
		return err
	}
	if line.Len() >= maxLine {
		return fmt.Errorf("the result is %d bytes long, more than %d", line.Len(), maxLine)
	}
	line.WriteByte('\n')
	_, err := w.Write(line.Bytes())
	return err
}

// ReadLoad returns the last result of a log, which must be a Load. It fails with ErrNone if there is none.
func ReadLoad(log io.Reader) (Load, error) {
	l, err := read[Load](log)
	if err == nil {
		err = l.Validate()
	}
	if err != nil {
		return Load{}, wrap(KindLoad, err)
	}
	return l, nil
}

// ReadContract returns the last result of a log, which must be a Contract. It fails with ErrNone if there is none.
func ReadContract(log io.Reader) (Contract, error) {
	c, err := read[Contract](log)
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		return Contract{}, wrap(KindContract, err)
	}
	return c, nil
}

func wrap(kind string, err error) error {
	if errors.Is(err, ErrNone) {
		return err
	}
	return fmt.Errorf("the log's last result cannot be read as a %s: %w", kind, err)
}

func read[T Load | Contract](log io.Reader) (T, error) {
	var v T
	line, err := last(log)
	if err != nil {
		return v, err
	}
	zip, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(line)))
	if err != nil {
		return v, err
	}
	data, err := io.ReadAll(io.LimitReader(zip, maxJSON+1))
	if err != nil {
		return v, err
	}
	if len(data) > maxJSON {
		return v, fmt.Errorf("it is more than %d bytes long", maxJSON)
	}
	return v, json.Unmarshal(data, &v)
}

// last returns the last result's line, without its marker. It skips an incomplete line, which a killed probe leaves,
// and a line that is too long.
func last(log io.Reader) ([]byte, error) {
	r := bufio.NewReaderSize(log, 64<<10)
	var found, line []byte
	ours, start := false, true
	for {
		part, err := r.ReadSlice('\n')
		if start {
			ours, line = bytes.HasPrefix(part, []byte(marker)), line[:0]
		}
		if ours && len(line)+len(part) > maxLine {
			ours = false
		}
		if ours {
			line = append(line, part...)
		}
		start = err == nil
		switch {
		case err == nil && ours:
			found = append(found[:0], bytes.TrimRight(line[len(marker):], "\r\n")...)
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			if found == nil {
				return nil, ErrNone
			}
			return found, nil
		default:
			return nil, err
		}
	}
}
