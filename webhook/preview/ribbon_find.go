package preview

import "strings"

// A bodyFinder finds the end of a page's <body> tag in a stream. It parses tags, comments and text as browsers do
// (https://html.spec.whatwg.org/multipage/parsing.html#tokenization). If it cannot be sure, it finds none.
type bodyFinder struct {
	state   findState
	seen    int
	name    [12]byte // of the tag, in lower case, as far as it was read
	length  int      // of name
	closing bool     // the tag is an end tag
	raw     string   // the element whose text is not markup
}

// maxFind is how much of a page is searched, in bytes.
const maxFind = 64 << 10

type findState uint8

const (
	inText findState = iota
	tagOpen
	endTagOpen
	tagName
	beforeAttribute
	attributeName
	afterAttributeName
	beforeValue
	doubleQuoted
	singleQuoted
	unquoted
	afterQuoted
	selfClosing
	declaration
	declarationDash
	commentStart
	commentStartDash
	inComment
	commentDash
	commentEnd
	commentBang
	bogusComment
	rawText
	rawOpen
	rawName
	foundBody
	unsure
)

// find returns how many bytes of the next part of the page precede the start of its body.
func (f *bodyFinder) find(part []byte) (before int, ok bool) {
	for i, c := range part {
		if f.state == unsure || f.seen == maxFind {
			return 0, false
		}
		f.seen++
		if f.state = f.next(c); f.state == foundBody {
			return i + 1, true
		}
	}
	return 0, false
}

// next returns the state after c.
func (f *bodyFinder) next(c byte) findState {
	switch f.state {
	case inText:
		if c == '<' {
			return tagOpen
		}
		return inText
	case tagOpen, endTagOpen:
		return f.open(c)
	case tagName, beforeAttribute, attributeName, afterAttributeName, beforeValue, doubleQuoted, singleQuoted, unquoted, afterQuoted, selfClosing:
		return f.tag(c)
	case rawText, rawOpen, rawName:
		return f.rawText(c)
	}
	return f.comment(c)
}

// open returns the state after a byte that follows < or </.
func (f *bodyFinder) open(c byte) findState {
	end := f.state == endTagOpen
	switch {
	case letter(c):
		f.length, f.closing = 0, end
		f.add(c)
		return tagName
	case end && c == '>':
		return inText
	case end:
		return bogusComment
	case c == '/':
		return endTagOpen
	case c == '!':
		return declaration
	case c == '?':
		return bogusComment
	case c == '<':
		return tagOpen
	}
	return inText
}

// tag returns the state after a byte of a tag.
func (f *bodyFinder) tag(c byte) findState {
	switch f.state {
	case doubleQuoted:
		if c == '"' {
			return afterQuoted
		}
		return doubleQuoted
	case singleQuoted:
		if c == '\'' {
			return afterQuoted
		}
		return singleQuoted
	}
	switch {
	case c == '>':
		return f.tagEnd()
	case space(c):
		switch f.state {
		case attributeName, afterAttributeName:
			return afterAttributeName
		case beforeValue:
			return beforeValue
		}
		return beforeAttribute
	case c == '/' && f.state != beforeValue && f.state != unquoted:
		return selfClosing
	}
	switch f.state {
	case tagName:
		f.add(c)
		return tagName
	case beforeValue:
		switch c {
		case '"':
			return doubleQuoted
		case '\'':
			return singleQuoted
		}
		return unquoted
	case unquoted:
		return unquoted
	case attributeName, afterAttributeName:
		if c == '=' {
			return beforeValue
		}
	}
	return attributeName
}

// tagEnd returns the state after a tag.
func (f *bodyFinder) tagEnd() findState {
	if f.closing {
		return inText
	}
	switch name := string(f.name[:f.length]); name {
	case "body":
		return foundBody
	case "script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes", "noscript":
		f.raw = name
		return rawText
	case "plaintext", "template", "frameset", "svg", "math":
		return unsure
	}
	return inText
}

// rawText returns the state after a byte of text that is not markup.
func (f *bodyFinder) rawText(c byte) findState {
	switch {
	case f.state == rawOpen && c == '/':
		f.length = 0
		return rawName
	case f.state == rawOpen && c == '!' && f.raw == "script":
		return unsure // what ends it depends on what follows
	case f.state == rawName && letter(c) && f.length < len(f.raw) && strings.HasPrefix(f.raw, string(append(f.name[:f.length:f.length], c|0x20))):
		f.add(c)
		return rawName
	case f.state == rawName && f.length == len(f.raw) && (c == '>' || c == '/' || space(c)):
		f.closing = true
		f.state = tagName
		return f.tag(c)
	case c == '<':
		return rawOpen
	}
	return rawText
}

// comment returns the state after a byte of a comment, or of something else that begins with <!.
func (f *bodyFinder) comment(c byte) findState {
	switch f.state {
	case declaration:
		if c == '-' {
			return declarationDash
		}
	case declarationDash:
		if c == '-' {
			return commentStart
		}
	case commentStart, commentStartDash, inComment, commentDash, commentEnd, commentBang:
		return f.inComment(c)
	case unsure, foundBody:
		return f.state
	}
	if c == '>' {
		return inText
	}
	return bogusComment
}

func (f *bodyFinder) inComment(c byte) findState {
	switch c {
	case '-':
		switch f.state {
		case commentStart:
			return commentStartDash
		case inComment, commentBang:
			return commentDash
		}
		return commentEnd
	case '>':
		switch f.state {
		case commentStart, commentStartDash, commentEnd, commentBang:
			return inText
		}
	case '!':
		if f.state == commentEnd {
			return commentBang
		}
	}
	return inComment
}

// add appends a byte to the tag's name.
func (f *bodyFinder) add(c byte) {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	if f.length < len(f.name) {
		f.name[f.length] = c
		f.length++
	}
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func space(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r' }
