package input

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"
)

// leafOf returns what makes a value for templates of one in a Parquet column:
//
//	text, enum                as it is
//	integer, float, decimal   its digits, as a json.Number; NaN and Inf are texts
//	boolean                   a bool
//	date                      2026-11-24
//	timestamp                 RFC 3339, 2026-11-24T09:30:00Z; without the Z where the
//	                          column holds wall-clock times of no named zone
//	time                      09:30:00
//	interval                  ISO 8601, P1M2DT3S
//	UUID                      its usual text
//	JSON                      what it says
//	bytes of no type          as text if they are UTF-8, and else in base64
func leafOf(t parquet.Type) func(parquet.Value) (any, error) {
	if lt := t.LogicalType(); lt != nil {
		switch lt := lt.Value.(type) {
		case *format.StringType, *format.EnumType:
			return text8
		case *format.JsonType:
			return jsonValue
		case *format.UUIDType:
			return uuid
		case *format.DecimalType:
			return func(v parquet.Value) (any, error) { return decimal(v, int(lt.Scale)), nil }
		case *format.DateType:
			return func(v parquet.Value) (any, error) {
				return time.Unix(int64(v.Int32())*24*60*60, 0).UTC().Format(time.DateOnly), nil
			}
		case *format.TimeType:
			return func(v parquet.Value) (any, error) {
				return timestamp(v, lt.Unit).Format("15:04:05.999999999"), nil
			}
		case *format.TimestampType:
			layout := "2006-01-02T15:04:05.999999999"
			if lt.IsAdjustedToUTC {
				layout = time.RFC3339Nano
			}
			return func(v parquet.Value) (any, error) { return timestamp(v, lt.Unit).Format(layout), nil }
		case *format.IntType:
			if !lt.IsSigned {
				return unsigned
			}
		}
	}
	if ct := t.ConvertedType(); ct != nil && *ct == deprecated.Interval {
		return interval
	}
	return plain
}

// plain is the value of a column with no type but the physical one.
func plain(v parquet.Value) (any, error) {
	switch v.Kind() {
	case parquet.Boolean:
		return v.Boolean(), nil
	case parquet.Int32:
		return json.Number(strconv.Itoa(int(v.Int32()))), nil
	case parquet.Int64:
		return json.Number(strconv.FormatInt(v.Int64(), 10)), nil
	case parquet.Int96:
		return int96(v.Int96()), nil
	case parquet.Float:
		return float(float64(v.Float()), 32), nil
	case parquet.Double:
		return float(v.Double(), 64), nil
	default:
		if b := v.ByteArray(); !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
			return base64.StdEncoding.EncodeToString(b), nil
		}
		return string(v.ByteArray()), nil
	}
}

func text8(v parquet.Value) (any, error) {
	s := string(v.ByteArray())
	if !utf8.ValidString(s) {
		return nil, errors.New("not UTF-8, which Parquet's texts are: write the file again with the column as text, or as bytes")
	}
	return s, nil
}

// jsonValue is what a JSON text says, or the text where it is not JSON.
func jsonValue(v parquet.Value) (any, error) {
	d := json.NewDecoder(bytes.NewReader(v.ByteArray()))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return text8(v)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return text8(v)
	}
	return value, nil
}

func uuid(v parquet.Value) (any, error) {
	b := v.ByteArray()
	if len(b) != 16 {
		return nil, fmt.Errorf("a UUID of %d bytes, want 16", len(b))
	}
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-"), nil
}

func unsigned(v parquet.Value) (any, error) {
	if v.Kind() == parquet.Int32 {
		return json.Number(strconv.FormatUint(uint64(v.Uint32()), 10)), nil
	}
	return json.Number(strconv.FormatUint(v.Uint64(), 10)), nil
}

// float writes a number as JSON does.
func float(f float64, bits int) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strconv.FormatFloat(f, 'g', -1, bits)
	}
	form := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		form = 'e'
	}
	return json.Number(strconv.FormatFloat(f, form, -1, bits))
}

// decimal writes an integer of any size with a point before the last scale digits.
func decimal(v parquet.Value, scale int) json.Number {
	n := new(big.Int)
	switch v.Kind() {
	case parquet.Int32:
		n.SetInt64(int64(v.Int32()))
	case parquet.Int64:
		n.SetInt64(v.Int64())
	default: // two's complement, the most significant byte first
		b := v.ByteArray()
		n.SetBytes(b)
		if len(b) > 0 && b[0] >= 0x80 {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		}
	}
	if scale <= 0 {
		return json.Number(n.String())
	}
	digits := new(big.Int).Abs(n).String()
	if short := scale + 1 - len(digits); short > 0 {
		digits = strings.Repeat("0", short) + digits
	}
	sign := ""
	if n.Sign() < 0 {
		sign = "-"
	}
	return json.Number(sign + digits[:len(digits)-scale] + "." + digits[len(digits)-scale:])
}

// timestamp is the time that a number of units stands for.
func timestamp(v parquet.Value, unit format.TimeUnit) time.Time {
	n := v.Int64()
	if v.Kind() == parquet.Int32 {
		n = int64(v.Int32())
	}
	switch unit.Value.(type) {
	case *format.MilliSeconds:
		return time.UnixMilli(n).UTC()
	case *format.NanoSeconds:
		return time.Unix(0, n).UTC()
	default:
		return time.UnixMicro(n).UTC()
	}
}

// int96 is a time as Impala and old Sparks write it: nanoseconds of a day, and the
// number of that day from 4713 BC on.
func int96(v deprecated.Int96) string {
	const epoch = 2_440_588 // the day 1970-01-01
	return time.Unix((int64(v[2])-epoch)*24*60*60, v.Int64()).UTC().Format(time.RFC3339Nano)
}

func interval(v parquet.Value) (any, error) {
	b := v.ByteArray()
	if len(b) != 12 {
		return nil, fmt.Errorf("an interval of %d bytes, want 12", len(b))
	}
	seconds := strconv.FormatFloat(float64(binary.LittleEndian.Uint32(b[8:]))/1000, 'f', -1, 64)
	return fmt.Sprintf("P%dM%dDT%sS", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), seconds), nil
}
