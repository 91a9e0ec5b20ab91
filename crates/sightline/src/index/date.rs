//! Days and seconds, for filters by date: what a camera writes, what a person types. No time zones: cameras write
//! none, so everything is read as UTC.

use std::io::Cursor;

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// When a picture was taken, by its EXIF data; seconds since 1970.
pub fn taken(bytes: &[u8]) -> Option<i64> {
    // What some programs write ends early; the fields before are whole.
    let data = exif::Reader::new()
        .continue_on_error(true)
        .read_from_container(&mut Cursor::new(bytes))
        .or_else(|error| error.distill_partial_result(|_| ()))
        .ok()?;
    [exif::Tag::DateTimeOriginal, exif::Tag::DateTimeDigitized].iter().find_map(|&tag| {
        let exif::Value::Ascii(texts) = &data.get_field(tag, exif::In::PRIMARY)?.value else { return None };
        let t = exif::DateTime::from_ascii(texts.first()?).ok()?;
        let day = days(i64::from(t.year), u32::from(t.month), u32::from(t.day))?;
        Some(day * DAY + i64::from(t.hour) * 3600 + i64::from(t.minute) * 60 + i64::from(t.second))
    })
}

/// The first second of a day written `2024-05-31`, a month `2024-05` or a year `2024`, and of the one after it.
pub fn parse(text: &str) -> Option<(i64, i64)> {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |i: usize, digits: usize| -> Option<u32> {
        let part = parts.get(i)?;
        (part.len() == digits && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let year = i64::from(number(0, 4)?);
    let (first, next) = match parts.len() {
        1 => (days(year, 1, 1)?, days(year + 1, 1, 1)?),
        2 => {
            let month = number(1, 2)?;
            let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
            (days(year, month, 1)?, next?)
        }
        3 => {
            let day = days(year, number(1, 2)?, number(2, 2)?)?;
            (day, day + 1)
        }
        _ => return None,
    };
    Some((first * DAY, next * DAY))
}

/// `2024-05-31` of a time in seconds since 1970.
pub fn format(seconds: i64) -> String {
    // Years run from March here, so that the leap day comes last; eras of 400 years have 146,097 days.
    let z = seconds.div_euclid(DAY) + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since 1970 of a date of the Gregorian calendar; none where there is no such date.
fn days(year: i64, month: u32, day: u32) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let most = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => return None,
    };
    if day == 0 || day > most {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_where_the_exif_data_lack_their_end() {
        // TIFF: one entry that points to the EXIF directory, and no directory after it.
        let mut bytes = b"II*\0\x08\0\0\0\x01\0".to_vec();
        bytes.extend(b"\x69\x87\x04\0\x01\0\0\0\x1a\0\0\0\0\0\0\0");
        // Its one entry, DateTimeOriginal; the text stands at once behind it, where the next directory's place should.
        bytes.extend(b"\x01\0\x03\x90\x02\0\x14\0\0\0\x28\0\0\0");
        bytes.extend(b"2024:02:29 12:00:00\0");
        assert_eq!(taken(&bytes), Some(1_709_164_800 + DAY / 2));
        assert_eq!(taken(&bytes[..40]), None);
        assert_eq!(taken(b"no picture"), None);
    }

    #[test]
    fn dates_and_seconds() {
        // `date -u -d 2024-02-29 +%s` prints 1709164800.
        let check = |text: &str, expected: Option<(i64, i64)>| assert_eq!(parse(text), expected, "{text}");
        check("2024-02-29", Some((1_709_164_800, 1_709_164_800 + DAY)));
        check("1970", Some((0, 365 * DAY)));
        check("2024-12", Some((1_733_011_200, 1_735_689_600)));
        check("1969-12-31", Some((-DAY, 0)));
        for bad in ["2023-02-29", "2024-13", "2024-00-01", "24", "2024-2-1", "", "2024-01-01-01", "20x4", "+024"] {
            check(bad, None);
        }
        for day in (-100_000..100_000).step_by(97) {
            let text = format(day * DAY + DAY / 2);
            if text.len() == 10 {
                assert_eq!(parse(&text), Some((day * DAY, (day + 1) * DAY)), "{text}");
            }
        }
    }
}
