// Package http1 reads HTTP/1.0 and HTTP/1.1 heads and chunked bodies as bytes, and does no I/O. What it accepts has exactly one
// reading: whatever two honest parsers could frame or route in two ways is refused, and no option loosens that.
//
// Parsers keep offsets and flags, never a copy, and allocate nothing once Fields has grown. They may be called again with the same
// bytes and more after them, in the same buffer or another; the result does not depend on how the bytes were split.
//
// The grammar is that of RFC 9110 and RFC 9112. Where those leave a choice, or ask for tolerance that Node's parser does not have
// either, the stricter reading is taken; the tests name each case.
package http1

// Defaults of Limits.
const (
	DefaultMaxBytes  = 16 << 10
	DefaultMaxFields = 200
)

// Limits bound one head. A zero field stands for its default.
type Limits struct {
	MaxBytes  int // bytes of a head, start line and final empty line included
	MaxFields int // field lines of a head
	MaxTarget int // bytes of a request target; 0: whatever MaxBytes leaves
}

// An Error says why a message was refused. All values are variables of this package, so that refusing costs no memory;
// neither field repeats anything of the message.
type Error struct {
	Status int    // what to answer the client with: 4xx or 5xx for a request and any chunked body, 502 for a response
	Reason string // for the log: "bare_lf", "header_too_large", ...
}

func (e *Error) Error() string { return "http1: " + e.Reason }

// A fault is the number of a reason; requests and responses share reasons but not statuses.
type fault uint8

const (
	none fault = iota
	bareLF
	bareCR
	nulByte
	controlByte
	obsFold
	spaceBeforeColon
	badName
	badStartLine
	badMethod
	longMethod
	connectMethod
	badTarget
	targetTooLong
	badVersion
	versionUnknown
	badStatus
	headTooLarge
	tooManyFields
	noHost
	twoHosts
	badHost
	hostMismatch
	badLength
	twoLengths
	lengthAndCoding
	badCoding
	unknownCoding
	codingIn10
	lengthForbidden
	badConnection
	badExpect
	badTrailer
	badChunkSize
	badChunkExtension
	chunkOverhead
	badChunkEnd
	trailerTooLarge
	forbiddenTrailer
	faults
)

// requestErrors is also what chunked bodies of both directions fail with.
var requestErrors = [faults]Error{
	bareLF:            {400, "bare_lf"},
	bareCR:            {400, "bare_cr"},
	nulByte:           {400, "nul_byte"},
	controlByte:       {400, "control_byte"},
	obsFold:           {400, "obs_fold"},
	spaceBeforeColon:  {400, "space_before_colon"},
	badName:           {400, "bad_field_name"},
	badStartLine:      {400, "bad_start_line"},
	badMethod:         {400, "bad_method"},
	longMethod:        {501, "method_too_long"}, // RFC 9112 section 3
	connectMethod:     {501, "connect"},
	badTarget:         {400, "bad_target"},
	targetTooLong:     {414, "target_too_long"},
	badVersion:        {400, "bad_version"},
	versionUnknown:    {505, "version"},
	badStatus:         {400, "bad_status"},
	headTooLarge:      {431, "header_too_large"},
	tooManyFields:     {431, "too_many_fields"},
	noHost:            {400, "no_host"},
	twoHosts:          {400, "two_hosts"},
	badHost:           {400, "bad_host"},
	hostMismatch:      {400, "host_mismatch"},
	badLength:         {400, "bad_length"},
	twoLengths:        {400, "two_lengths"},
	lengthAndCoding:   {400, "length_and_coding"},
	badCoding:         {400, "bad_transfer_coding"},
	unknownCoding:     {501, "unknown_transfer_coding"},
	codingIn10:        {400, "transfer_coding_in_1_0"},
	lengthForbidden:   {400, "length_forbidden"},
	badConnection:     {400, "bad_connection"},
	badExpect:         {417, "expectation"},
	badTrailer:        {400, "bad_trailer"},
	badChunkSize:      {400, "bad_chunk_size"},
	badChunkExtension: {400, "bad_chunk_extension"},
	chunkOverhead:     {400, "chunk_overhead"},
	badChunkEnd:       {400, "bad_chunk_end"},
	trailerTooLarge:   {400, "trailer_too_large"},
	forbiddenTrailer:  {400, "forbidden_trailer"},
}

var responseErrors = func() (e [faults]Error) {
	for i := range e {
		e[i] = Error{502, requestErrors[i].Reason}
	}
	return e
}()

// faultOf names what is wrong with byte c where field or reason text should be.
func faultOf(c byte) fault {
	switch c {
	case '\n':
		return bareLF
	case '\r':
		return bareCR
	case 0:
		return nulByte
	}
	return controlByte
}
