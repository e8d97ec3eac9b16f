"""What a verification says to people: each finding in Vietnamese and in English.

One table for both verifiers: the browser page gets it with its script (hub/doors/verify.py). Times among the
values come as text in Vietnam's time; ``{why}`` is the technical reason, in English in both languages.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

VIETNAM = timezone(timedelta(hours=7))


def shown(moment: datetime) -> str:
    """A moment as people in Vietnam read it, to the second."""
    try:
        return moment.astimezone(VIETNAM).strftime("%d/%m/%Y %H:%M:%S (UTC+7)")
    except OverflowError:  # in the last hours of the year 9999, which mean "never"
        return moment.isoformat()


WORDS: dict[str, tuple[str, str]] = {
    # -- the file
    "file_intact": (
        "Tệp còn nguyên vẹn như máy chủ liên thông đã lập và ký lúc {at}.",
        "The file is as the hub put it together and signed it at {at}.",
    ),
    "file_unreadable": (
        "Tệp không phải là một bằng chứng nguyên vẹn: đã bị sửa, bị cắt, hoặc là tệp khác. ({why})",
        "The file is not an intact proof: it was altered or cut, or is something else. ({why})",
    ),
    "file_altered": (
        "Tệp không đúng như máy chủ liên thông đã ký, hoặc do khóa không được tin cậy ký: không thể dựa vào "
        "bất cứ điều gì trong tệp. ({why})",
        "The file is not as the hub signed it, or a key that is not trusted signed it: nothing in it can be "
        "relied on. ({why})",
    ),
    "receipt_alone": (
        "Đây là một biên nhận riêng lẻ, không phải tệp bằng chứng đầy đủ: chỉ kiểm tra được sự kiện này.",
        "This is a single receipt, not a whole proof: only this event can be checked.",
    ),
    "clock_wrong": (
        "Đồng hồ của máy này chỉ {now}, sớm hơn lúc {at} ghi trong tệp. Một trong hai đồng hồ sai: hãy chỉnh "
        "giờ rồi kiểm tra lại; nếu giờ của máy đúng thì máy chủ liên thông đã ghi thời gian trong tương lai.",
        "This computer's clock says {now}, earlier than {at}, which the file states. One of the two is wrong: "
        "set the clock and verify again; if it is right, the hub wrote down a time in the future.",
    ),
    # -- acceptance and the document
    "accepted": (
        "Máy chủ liên thông «{hub}» đã nhận văn bản {message} lúc {at}, do hệ thống «{endpoint}» gửi cho cơ "
        "quan {from}, mã của bên gửi là {id}, {size} byte, SHA-256 {sha256}.",
        "The hub «{hub}» accepted the message {message} at {at}, submitted by the system «{endpoint}» for the "
        "agency {from}, under the sender's id {id}, {size} bytes, SHA-256 {sha256}.",
    ),
    "accepted_wrong": (
        "Biên nhận tiếp nhận không đúng. ({why})",
        "The receipt of acceptance is wrong. ({why})",
    ),
    "document_same": (
        "Văn bản được đưa ra kiểm tra đúng là văn bản mà bằng chứng nói đến, không sai một byte.",
        "The document given is the one that the proof speaks of, to the byte.",
    ),
    "document_other": (
        "Văn bản được đưa ra kiểm tra KHÔNG phải là văn bản mà bằng chứng nói đến. ({why})",
        "The document given is NOT the one that the proof speaks of. ({why})",
    ),
    "document_missing": (
        "Chưa có văn bản để đối chiếu: hãy đưa thêm tệp văn bản. Chưa chứng minh được bằng chứng này thuộc văn "
        "bản nào ngoài mã SHA-256 nói trên.",
        "No document was given to compare: give it too. So far the proof is of nothing but the SHA-256 above.",
    ),
    # -- the sender
    "sender_signed": (
        "Chữ ký của bên gửi đúng: được tạo bằng khóa {kid}, là khóa mà máy chủ đã ghi nhận lúc tiếp nhận.",
        "The sender's signature is right: it was made with the key {kid}, which the hub noted when it accepted.",
    ),
    "sender_other_name": (
        "Trong văn bản đã ký, bên gửi tự ghi mình là {named}; máy chủ liên thông ghi nhận là {from}. Hai mã này "
        "là của cùng một cơ quan là do máy chủ nói.",
        "In the signed document the sender calls itself {named}; the hub noted {from}. That the two codes are one "
        "agency's is the hub's word.",
    ),
    "sender_needs_document": (
        "Chưa kiểm tra chữ ký của bên gửi: phải có văn bản.",
        "The sender's signature was not checked: that takes the document.",
    ),
    "sender_wrong": (
        "Chữ ký của bên gửi KHÔNG đúng, hoặc không do khóa mà máy chủ đã ghi nhận. ({why})",
        "The sender's signature is WRONG, or not by the key that the hub noted. ({why})",
    ),
    "sender_key_unnamed": (
        "Tệp không có khóa của bên gửi (văn bản được nhận trước khi máy chủ ghi nhận khóa): chữ ký của bên gửi "
        "chưa được kiểm tra.",
        "The file has no key of the sender (the message is older than the hub's noting of keys): the sender's "
        "signature was not checked.",
    ),
    "sender_no_signature": (
        "Định dạng {format} không có chữ ký của bên gửi trên toàn bộ các byte. Ai gửi là do máy chủ liên thông "
        "xác nhận: hệ thống «{endpoint}» đã đăng nhập khi gửi.",
        "The format {format} has no signature of the sender over its bytes. Who sent it is the hub's word: the "
        "system «{endpoint}» was authenticated when it submitted it.",
    ),
    "key_by_hub": (
        "Khóa này thuộc về cơ quan {from} là do máy chủ liên thông đăng ký; không có chứng thư số nào đi kèm.",
        "That this key belongs to the agency {from} is the hub's registration; no certificate comes with it.",
    ),
    "key_known": (
        "Khóa này là của cơ quan {from}, theo danh sách tin cậy của chính bạn.",
        "This key is one of the agency {from}, by your own list of the trusted.",
    ),
    "key_foreign": (
        "Khóa {kid} KHÔNG nằm trong số khóa của cơ quan {from} mà danh sách tin cậy của bạn nêu: có thể người "
        "khác đã ký thay, hoặc cơ quan đã đổi khóa. Hãy hỏi chính cơ quan đó.",
        "The key {kid} is NOT among those that your list of the trusted names for the agency {from}: somebody "
        "else may have signed in its name, or it has a new key. Ask the agency itself.",
    ),
    "certificate_pinned": (
        "Khóa đi kèm chứng thư số của {subject}, nhưng máy chủ tin chứng thư đó vì nó đã được đăng ký, không "
        "phải nhờ một tổ chức chứng thực được tin cậy.",
        "The key comes with a certificate of {subject}, but the hub took it as registered, not on an "
        "authority's word.",
    ),
    "certificate_good": (
        "Chứng thư số của {subject} dẫn đến {anchor}, là tổ chức được tin cậy, và có hiệu lực lúc tiếp nhận "
        "({at}).",
        "The certificate of {subject} leads to {anchor}, who is trusted, and was valid when the message was "
        "accepted ({at}).",
    ),
    "certificate_good_then": (
        "Chứng thư số của {subject} dẫn đến {anchor}, là tổ chức được tin cậy, và có hiệu lực lúc tiếp nhận "
        "({at}). Nay đã hết hạn ({ended}); điều đó không ảnh hưởng đến chữ ký có từ trước.",
        "The certificate of {subject} leads to {anchor}, who is trusted, and was valid when the message was "
        "accepted ({at}). It has expired since ({ended}), which takes nothing from a signature made before.",
    ),
    "certificate_seen_later": (
        "Người ngoài chỉ thấy việc tiếp nhận từ lúc {seen}, sau khi chứng thư số của bên gửi hết hạn ({ended}): "
        "rằng văn bản được nhận trước đó là do máy chủ liên thông nói.",
        "Outsiders saw the acceptance at {seen} first, when the sender's certificate had ended ({ended}): that "
        "the message was accepted before is the hub's word.",
    ),
    "certificate_no_anchors": (
        "Chứng thư số của {subject} chưa được kiểm tra: chưa nêu tổ chức chứng thực nào được tin cậy (--trust).",
        "The certificate of {subject} was not checked: nobody was named as a trusted authority (--trust).",
    ),
    "certificate_wrong": (
        "Chứng thư số của bên gửi không dùng được lúc tiếp nhận ({at}). ({why})",
        "The sender's certificate was of no use when the message was accepted ({at}). ({why})",
    ),
    "revocation_good": (
        "Lúc tiếp nhận, chứng thư số không bị thu hồi, theo trả lời của tổ chức chứng thực lập lúc {answered}.",
        "When the message was accepted the certificate was not revoked, by its authority's answer of {answered}.",
    ),
    "revocation_revoked": (
        "Chứng thư số của bên gửi đã bị thu hồi ({revoked}) trước khi văn bản được tiếp nhận.",
        "The sender's certificate had been revoked ({revoked}) before the message was accepted.",
    ),
    "revocation_unknown": (
        "Lúc tiếp nhận, chưa biết chứng thư số có bị thu hồi hay không; máy chủ vẫn nhận theo chính sách "
        "«{policy}». ({why})",
        "When the message was accepted it was not known whether the certificate was revoked; the hub took it "
        "under its policy «{policy}». ({why})",
    ),
    "certificate_unchecked_here": (
        "Trang này chỉ kiểm tra rằng khóa nằm trong chứng thư số, KHÔNG kiểm tra tổ chức chứng thực và việc "
        "thu hồi. Hãy dùng lệnh: lienthong verify BẰNG_CHỨNG VĂN_BẢN --trust TỔ_CHỨC.pem",
        "This page checks only that the key is the one in the certificate, NOT the authorities behind it nor "
        "its revocation. The command does: lienthong verify PROOF DOCUMENT --trust ANCHORS.pem",
    ),
    # -- recipients and what became of it
    "recipients_listed": (
        "Danh sách {count} cơ quan nhận trong tệp đúng là danh sách lúc tiếp nhận: {recipients}.",
        "The file's list of recipients ({count}) is the one of the acceptance: {recipients}.",
    ),
    "recipients_other": (
        "Danh sách cơ quan nhận trong tệp KHÔNG phải là danh sách lúc tiếp nhận.",
        "The file's list of recipients is NOT the one of the acceptance.",
    ),
    "recipients_withheld": (
        "Bản này cấp cho một bên nhận: không có danh sách các bên nhận khác ({count} cơ quan nhận khi tiếp nhận).",
        "This copy is a recipient's: it does not list the other recipients ({count} at the acceptance).",
    ),
    "event": ("{kind}: {whom}, lúc {at}.{more}", "{kind}: {whom}, at {at}.{more}"),
    "event_wrong": (
        "Sự kiện thứ {number} trong tệp không đúng. ({why})",
        "The file's event {number} is wrong. ({why})",
    ),
    "event_unknown": (
        "Sự kiện thứ {number} tự gọi là «{kind}»: chương trình này không biết loại đó, nên không nói được nó có "
        "nghĩa gì. Nếu máy chủ mới hơn, hãy dùng chương trình mới hơn.",
        "Event {number} calls itself «{kind}», a kind that this program does not know, so it cannot say what that "
        "means. If the hub is newer, use a newer program.",
    ),
    "recipient_signed": (
        "Chính hệ thống «{endpoint}» đã ký rằng mình {what} văn bản này lúc {at} (theo đồng hồ của hệ thống "
        "đó), bằng khóa {kid}.",
        "The system «{endpoint}» itself signed that it {what} this message, at {at} by its own clock, with the "
        "key {kid}.",
    ),
    "recipient_keys_by_hub": (
        "Khóa đã tạo {count} chữ ký xác nhận nói trên thuộc về bên nhận là do máy chủ liên thông đăng ký: hãy đối "
        "chiếu mã khóa với mã do chính bên nhận công bố.",
        "That the keys of these {count} signed acknowledgements are the recipients' own is the hub's "
        "registration: compare the keys' ids with those that the recipients themselves make known.",
    ),
    "recipient_keys_known": (
        "Khóa đã tạo {count} chữ ký xác nhận nói trên là của chính bên nhận, theo danh sách tin cậy của bạn.",
        "The keys of {count} signed acknowledgements are the recipients' own, by your own list of the trusted.",
    ),
    "recipient_key_foreign": (
        "Khóa {kid} của hệ thống «{endpoint}» KHÔNG nằm trong số khóa mà danh sách tin cậy của bạn nêu cho "
        "{agencies}: có thể không phải bên nhận đã ký, hoặc bên nhận đã đổi khóa. Hãy hỏi chính bên nhận.",
        "The key {kid} of the system «{endpoint}» is NOT among those that your list of the trusted names for "
        "{agencies}: perhaps it was not the recipient who signed, or it has a new key. Ask the recipient itself.",
    ),
    "recipient_wrong": (
        "Chữ ký xác nhận của hệ thống «{endpoint}» không đúng. ({why})",
        "The signed acknowledgement of the system «{endpoint}» is wrong. ({why})",
    ),
    "recipient_missing": (
        "Sự kiện nêu một xác nhận do hệ thống «{endpoint}» ký, nhưng xác nhận đó không có trong tệp: chưa "
        "kiểm tra được.",
        "The event names an acknowledgement that the system «{endpoint}» signed, which is not in the file: not "
        "checked.",
    ),
    "recipient_unsigned": (
        "Việc hệ thống «{endpoint}» {what} văn bản chỉ do máy chủ liên thông nói: bên nhận không ký xác nhận.",
        "That the system «{endpoint}» {what} it is the hub's word: the recipient did not sign it.",
    ),
    "beyond": (
        "Máy chủ «{hub}», nơi nhận chuyển tiếp, cũng đã ký biên nhận tiếp nhận đúng văn bản này lúc {at}, bằng "
        "khóa {kid}. Khóa đó là của máy chủ ấy hay không, hãy đối chiếu với danh sách tin cậy của bạn.",
        "The other hub «{hub}» signed a receipt of its own that it accepted this very message at {at}, with the "
        "key {kid}. Whether that is its key, compare with your list of the trusted.",
    ),
    "beyond_untrusted": (
        "Trong sự kiện chuyển tiếp có biên nhận của máy chủ kia, nhưng khóa {kid} của nó không nằm trong số "
        "khóa được tin cậy: chưa kiểm tra.",
        "The event of relaying holds a receipt of the other hub, but its key {kid} is not among the trusted "
        "ones: it was not checked.",
    ),
    "beyond_wrong": (
        "Biên nhận của máy chủ kia trong sự kiện thứ {number} không đúng. ({why})",
        "The other hub's receipt in event {number} is wrong. ({why})",
    ),
    "open": (
        "Tệp chưa cho thấy kết quả đối với {count} cơ quan nhận: {recipients}.",
        "The file shows no end yet for {count} of the recipients: {recipients}.",
    ),
    # -- the log
    "log_recorded": (
        "Cả {count} sự kiện nằm trong nhật ký minh bạch «{log}», ở điểm kiểm tra gồm {size} mục do nhật ký ký.",
        "All {count} events are in the transparency log «{log}», at its signed checkpoint of {size} entries.",
    ),
    "log_partly": (
        "{count} trong {all} sự kiện nằm trong nhật ký minh bạch «{log}», ở điểm kiểm tra gồm {size} mục do "
        "nhật ký ký.",
        "{count} of {all} events are in the transparency log «{log}», at its signed checkpoint of {size} entries.",
    ),
    "log_no_key": (
        "Chưa kiểm tra nhật ký minh bạch: chưa nêu khóa của nhật ký (--log-key).",
        "The transparency log was not looked at: its key was not given (--log-key).",
    ),
    "log_checkpoint_wrong": (
        "Điểm kiểm tra của nhật ký không dựa vào được. ({why})",
        "The log's checkpoint cannot be relied on. ({why})",
    ),
    "log_wrong": (
        "Sự kiện thứ {number} KHÔNG nằm trong nhật ký ở chỗ mà tệp nói. ({why})",
        "The file's event {number} is NOT in the log where the file says. ({why})",
    ),
    "log_promised": (
        "Ở đây chưa thấy {count} sự kiện trong nhật ký minh bạch; máy chủ đã ký cam kết sẽ ghi chậm nhất lúc "
        "{until}. Thường chỉ sau vài giây: hãy lấy tệp mới, chậm nhất là sau hạn đó: lienthong proof {message}",
        "Events not shown to be in the transparency log yet: {count}. The hub promised under its signature to "
        "log them by {until}; it usually takes seconds. Get a new file, at the latest after that time: "
        "lienthong proof {message}",
    ),
    "log_promise_broken": (
        "VI PHẠM CAM KẾT: máy chủ đã ký rằng sự kiện thứ {number} sẽ vào nhật ký chậm nhất lúc {until}, "
        "nhưng chính tệp do máy chủ ký lúc {made} cho thấy nó chưa có trong nhật ký.{known} Tệp này là bằng "
        "chứng chống lại máy chủ: hãy giữ lại.",
        "A PROMISE WAS BROKEN: the hub signed that event {number} would be in the log by {until}, yet its own "
        "file, signed at {made}, shows that it was not.{known} This file is evidence against the hub: keep it.",
    ),
    "log_promise_old": (
        "Tệp được lập lúc {made}, khi {count} sự kiện mới được cam kết ghi chậm nhất lúc {until}; hạn đó đã qua. "
        "Hãy lấy tệp mới (lienthong proof {message}): máy chủ phải cho thấy các sự kiện trong nhật ký. Nếu không "
        "thể, tệp này chứng minh lời cam kết, và một điểm kiểm tra có bên làm chứng ký sau lúc đó chứng minh việc "
        "vi phạm.",
        "The file was made at {made}, when {count} events were promised for {until}; that time has passed. Get "
        "a new file (lienthong proof {message}): the hub must now show the events in the log. If it cannot, "
        "this file proves the promise, and a witnessed checkpoint of after that time proves that it was broken.",
    ),
    "log_promise_far": (
        "Máy chủ chỉ hứa ghi {count} sự kiện vào nhật ký minh bạch chậm nhất lúc {until}, lâu hơn {days} ngày mà "
        "bạn chấp nhận: lời hứa như vậy không ràng buộc ai. Hãy lấy tệp mới khi các sự kiện đã có trong nhật ký.",
        "The hub promises to log {count} of the events by {until} only, longer than the {days} days that you "
        "accept: such a promise binds nobody. Get a new file when the events are in the log.",
    ),
    "log_begun_anew": (
        "Lúc ký, máy chủ hứa ghi {count} sự kiện vào nhật ký «{old}»; nay chúng nằm trong nhật ký «{log}», cũng "
        "được bạn tin cậy: máy chủ đã bắt đầu một nhật ký mới. Nhật ký cũ không được kiểm tra ở đây; hãy hỏi "
        "người vận hành và các bên làm chứng vì sao.",
        "When it sealed {count} of the events the hub promised the log «{old}»; now they are in the log «{log}», "
        "which you trust too: the hub began another. The old log was not looked at here; ask the operator and "
        "the witnesses why.",
    ),
    "log_proof_needed": (
        "Biên nhận cam kết sự kiện sẽ vào nhật ký «{log}» chậm nhất lúc {until}; hạn đó đã qua. Ai giữ biên nhận "
        "cũng có thể không đưa bằng chứng nhật ký ra, nên điều này chưa nói lên gì: máy chủ phải cho thấy sự kiện "
        "tại /log/proof/{batch}/{index}. Nếu không thể, biên nhận này là bằng chứng về việc vi phạm cam kết.",
        "The receipt promises that the event is in the log «{log}» by {until}, which has passed. Whoever holds "
        "a receipt can leave its log proof out, so this says nothing yet: the hub must now show it at "
        "/log/proof/{batch}/{index}. If it cannot, this receipt proves that the promise was broken.",
    ),
    "log_never_promised": (
        "{count} sự kiện không có trong nhật ký minh bạch và cũng không có cam kết nào.",
        "{count} events are not in the transparency log, and nothing was promised.",
    ),
    "log_two_faces": (
        "NHẬT KÝ HAI MẶT: tệp này và tệp {other} đều có chữ ký của nhật ký «{log}» ở {size} mục, nhưng nội "
        "dung khác nhau. Hai tệp cùng nhau chứng minh nhật ký đã cho người khác xem một lịch sử khác: hãy giữ "
        "cả hai.",
        "THE LOG HAS TWO FACES: this file and {other} both have the signature of the log «{log}» at {size} "
        "entries, with different contents. Together they prove that it showed others another history: keep "
        "both.",
    ),
    "log_same_face": (
        "Tệp {other} có cùng điểm kiểm tra của nhật ký.",
        "The file {other} has the same checkpoint of the log.",
    ),
    "log_not_comparable": (
        "Không so sánh được với tệp {other} mà không có mạng: hai điểm kiểm tra có số mục khác nhau, hoặc không "
        "đọc được ({why}). Lệnh lienthong audit so sánh với chính nhật ký.",
        "It cannot be compared with {other} without a network: the checkpoints differ in size, or one cannot "
        "be read ({why}). The command lienthong audit compares with the log itself.",
    ),
    # -- witnesses and time
    "witnesses_met": (
        "{count} bên làm chứng được tin cậy đã ký điểm kiểm tra này: {names}; sớm nhất lúc {first}. Nếu họ không "
        "tiếp tay, máy chủ không thể có chữ ký của họ cho một nhật ký khác.",
        "Witnesses that are trusted signed the checkpoint, {count} of them: {names}; the first at {first}. Unless "
        "they help in it, the hub cannot have their signatures for another log.",
    ),
    "witnesses_missing": (
        "Thiếu bên làm chứng: cần {quorum}, điểm kiểm tra chỉ có chữ ký của {count} bên được tin cậy. Người "
        "vận hành máy chủ có thể đã cho bạn xem một nhật ký khác. Hãy lấy tệp mới sau ít phút.",
        "Witnesses are missing: {quorum} are asked for, {count} that are trusted signed the checkpoint. The "
        "hub's operator could have shown you another log. Get a new file in some minutes.",
    ),
    "witnesses_none": (
        "Không có bên làm chứng nào được tin cậy đã ký: người vận hành máy chủ có thể đã cho bạn xem một nhật "
        "ký khác với nhật ký cho người khác xem.",
        "No witness that is trusted signed: the hub's operator could have shown you another log than others see.",
    ),
    "witness_ahead": (
        "Bên làm chứng {name} ghi thời gian {at}, sau đồng hồ của máy này ({now}): một trong hai đồng hồ sai.",
        "The witness {name} states {at}, which is later than this computer's clock ({now}): one of the two is "
        "wrong.",
    ),
    "witness_early": (
        "Bên làm chứng {name} đã ký điểm kiểm tra lúc {at}, trước khi máy chủ nói là sự kiện thứ {number} xảy "
        "ra ({event}): thời gian của máy chủ không đúng.",
        "The witness {name} signed the checkpoint at {at}, before event {number} happened by the hub's account "
        "({event}): the hub's time is wrong.",
    ),
    "time_stamped": (
        "Tổ chức cấp dấu thời gian {authority} xác nhận điểm kiểm tra này đã có lúc {at}: mọi sự kiện trong đó "
        "xảy ra chậm nhất vào lúc ấy.",
        "The time-stamp authority {authority} confirms that this checkpoint existed at {at}: every event in it "
        "happened by then.",
    ),
    "time_stamp_unchecked": (
        "Có {count} dấu thời gian chưa được kiểm tra: chưa nêu tổ chức nào được tin cậy (--timestamp-ca).",
        "{count} time-stamps were not checked: nobody was named as a trusted authority for them (--timestamp-ca).",
    ),
    "time_stamp_unchecked_here": (
        "Có {count} dấu thời gian mà trang này KHÔNG kiểm tra. Hãy dùng lệnh: lienthong verify BẰNG_CHỨNG "
        "VĂN_BẢN --timestamp-ca TỔ_CHỨC.pem",
        "This page does NOT check the {count} time-stamps. The command does: lienthong verify PROOF DOCUMENT "
        "--timestamp-ca ROOT.pem",
    ),
    "time_stamp_wrong": ("Một dấu thời gian không dùng được. ({why})", "A time-stamp is of no use. ({why})"),
    "time_by_hub": (
        "Thời gian chỉ do máy chủ liên thông ghi: không có bên làm chứng hay dấu thời gian nào được tin cậy "
        "xác nhận.",
        "The times are the hub's word alone: no witness and no time-stamp that is trusted confirms them.",
    ),
    # -- this computer
    "browser_too_old": (
        "Trình duyệt này không có thuật toán {alg}: hãy dùng trình duyệt mới hơn, hoặc lệnh lienthong verify.",
        "This browser does not have the algorithm {alg}: use a newer one, or the command lienthong verify.",
    ),
}

LIMITS: dict[str, tuple[str, str]] = {
    "read": (
        "Không chứng minh rằng có người đã đọc hay hiểu văn bản; «xác nhận» là của hệ thống bên nhận.",
        "It does not prove that anybody read or understood the document; «acknowledged» is said by the "
        "recipient's system.",
    ),
    "content": (
        "Không chứng minh rằng nội dung văn bản là đúng, hay người ký có thẩm quyền.",
        "It does not prove that what the document says is true, or that whoever signed it was entitled to.",
    ),
    "attachments": (
        "Tệp đính kèm nằm ngoài văn bản chỉ được ràng buộc bằng mã SHA-256 ghi trong văn bản.",
        "Attachments beside the document are bound only by the SHA-256 that the document names.",
    ),
    "trust": (
        "Kết quả chỉ đáng tin bằng các khóa được tin cậy: khóa lấy từ chính máy chủ liên thông không chứng "
        "minh được gì trước người vận hành nó.",
        "The result is worth as much as the keys that it trusts: keys taken from the hub itself prove nothing "
        "against its operator.",
    ),
    "later": (
        "Tệp nói về những gì đã xảy ra đến lúc lập tệp ({made}); sau đó có thể đã có thêm sự kiện.",
        "The file tells what had happened when it was made ({made}); more may have happened since.",
    ),
}

KINDS: dict[str, tuple[str, str]] = {
    "accepted": ("Tiếp nhận", "Accepted"),
    "rejected": ("Từ chối tiếp nhận", "Rejected"),
    "relayed": ("Đã chuyển sang máy chủ khác", "Relayed to another hub"),
    "relay_rejected": ("Máy chủ khác từ chối", "Refused by another hub"),
    "relay_failed": ("Không chuyển được sang máy chủ khác", "Could not be relayed to another hub"),
    "handed_over": ("Đã giao cho hệ thống bên nhận", "Handed over to the recipient's system"),
    "acknowledged": ("Bên nhận xác nhận đã nhận", "Acknowledged by the recipient"),
    "refused": ("Bên nhận từ chối", "Refused by the recipient"),
    "expired": ("Hết hạn mà bên nhận chưa xác nhận", "Expired before the recipient acknowledged it"),
    "recalled": ("Đã thu hồi trước khi giao", "Recalled before it was handed over"),
    "signatures_checked": ("Đã kiểm tra chữ ký trong tệp đính kèm", "Signatures in attachments checked"),
}
"""Event kinds."""

PDF: dict[str, tuple[str, str]] = {
    "signed": ("mọi chữ ký nguyên vẹn và được tin cậy", "all signatures intact and trusted"),
    "unsigned": ("không có chữ ký", "no signature"),
    "invalid": ("có chữ ký KHÔNG nguyên vẹn", "a signature is NOT intact"),
    "changed": ("nội dung đã thay đổi sau khi ký", "content was changed after a signature"),
    "untrusted": ("chữ ký nguyên vẹn nhưng không được tin cậy", "signatures intact, but not trusted"),
    "encrypted": ("tệp bị mã hóa", "the file is encrypted"),
    "unreadable": ("không đọc được", "it cannot be read"),
    "limit": ("chưa kiểm tra được", "it could not be checked"),
}
"""What the hub found of the signatures in a PDF."""

DEEDS: dict[str, tuple[str, str]] = {
    "acknowledged": ("đã nhận", "received"),
    "refused": ("từ chối", "refused"),
}

STEPS: dict[str, tuple[str, str]] = {
    "file": ("Tệp", "File"),
    "clock": ("Đồng hồ", "Clock"),
    "accepted": ("Tiếp nhận", "Acceptance"),
    "document": ("Văn bản", "Document"),
    "sender": ("Bên gửi", "Sender"),
    "certificate": ("Chứng thư số", "Certificate"),
    "revocation": ("Thu hồi chứng thư", "Revocation"),
    "recipients": ("Bên nhận", "Recipients"),
    "events": ("Sự kiện", "Events"),
    "log": ("Nhật ký minh bạch", "Transparency log"),
    "witnesses": ("Bên làm chứng", "Witnesses"),
    "time": ("Thời gian", "Time"),
}

STATUSES: dict[str, tuple[str, str]] = {
    "proven": ("chứng minh được", "proven"),
    "not_proven": ("CHƯA chứng minh", "NOT proven"),
    "contradicted": ("SAI", "CONTRADICTED"),
}

VERDICTS: dict[str, tuple[str, str]] = {
    "verified": ("KẾT LUẬN: bằng chứng đúng.", "VERDICT: proven."),
    "failed": (
        "KẾT LUẬN: KHÔNG được chứng minh. Bước đầu tiên không đạt: {step}.",
        "VERDICT: NOT proven. The first step that fails: {step}.",
    ),
    "does_not": ("Bằng chứng này không nói lên:", "What this does not prove:"),
}
