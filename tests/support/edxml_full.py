"""An edXML document with every element that the model has."""

from __future__ import annotations

from tests.support.edxml_messages import Tree

_ORGAN: list[Tree] = [
    ("OrganId", "000.00.00.H63"), ("OrganizationInCharge", "UBND tỉnh Yên Bái"), ("OrganName", "Sở Nội vụ"),
    ("OrganAdd", "Số 2, phường Đồng Tâm"), ("Email", "vt@example.vn"), ("Telephone", "0216 3852"), ("Fax", ""),
    ("Website", "example.vn"),
]  # fmt: skip
_OTHER_INFO: list[Tree] = [
    ("Priority", "1"), ("SphereOfPromulgation", "Nội bộ"), ("TyperNotation", "TVC"), ("PromulgationAmount", "2"),
    ("PageAmount", "3"), ("ReplyFors", "không"), ("Direction", "false"), ("ReferenceCodes", "1;2"),
    ("Appendixes", [("Appendix", "Phụ lục 1"), ("Appendix", "Phụ lục 2")]), ("Secret", ""),
]  # fmt: skip
_HEADER: list[Tree] = [
    ("From", _ORGAN),
    ("To", [("OrganId", "G22")]),
    ("DocumentId", "số 1"),
    ("Code", [("CodeNumber", "215"), ("CodeNotation", "BC-UBND")]),
    ("PromulgationInfo", [("Place", "Yên Bái"), ("PromulgationDate", "2017/10/02")]),
    ("DocumentType", [("Type", "1"), ("TypeDetail", "0"), ("TypeName", "Báo cáo")]),
    ("Subject", "Trích yếu"),
    ("Content", "Nội dung"),
    ("SignerInfo", [("Competence", "KT. CHỦ TỊCH"), ("Position", "Phó Chủ tịch"), ("FullName", "Đặng Ánh")]),
    ("DueDate", "2017/10/16"),
    ("OtherInfo", _OTHER_INFO),
    ("ResponseFor", [("OrganId", "G22"), ("Code", "9/VPCP"), ("DocumentId", "hỏi"), ("PromulgationDate", "x")]),
    ("ResponseFor", [("OrganId", "G14")]),
    ("SteeringType", "3"),
    ("ToPlaces", [("Place", "Như trên"), ("Place", "Lưu: VT")]),
    ("ResponseForTask", [("TaskCode", "T1"), ("TaskCode", "T2")]),
    ("ApplicationType", "2"),
]
_BUSSINESS: list[Tree] = [
    ("DocumentId", "cũ"),
    ("BussinessDocType", "2"),
    ("BussinessDocReason", "Sai ngày"),
    ("Paper", "0"),
    ("ReplacementInfoList", [
        ("ReplacementInfo", [("DocumentId", "cũ-1"), ("OrganIdList", [("OrganId", "H1"), ("OrganId", "H2")])])]),
    ("BussinessDocumentInfo", [
        ("DocumentInfo", "1"), ("DocumentReceiver", "1"),
        ("ReceiverList", [("Receiver", [("OrganId", "H1"), ("ReceiverType", "0")])])]),
    ("StaffInfo", [("Department", "Văn thư"), ("Staff", "Bình"), ("Email", "b@x.vn"), ("Mobile", "84")]),
]  # fmt: skip
_FILE: list[Tree] = [
    ("ContentId", "cid:a"),
    ("ContentType", "application/zip"),
    ("Description", "Văn bản"),
    ("AttachmentName", "a.pdf"),
]
FULL: Tree = ("edXML", [
    ("edXMLEnvelope", [
        ("edXMLHeader", [
            ("MessageHeader", _HEADER),
            ("TraceHeaderList", [
                ("TraceHeader", [("OrganId", "H63"), ("Timestamp", "2017/10/02 08:15:30")]),
                ("Bussiness", _BUSSINESS),
            ]),
            ("ErrorList", [("Error", [("Code", "N.MessageHeader.Subject"), ("Description", "thiếu")])]),
            ("Signature", [("SignatureValue", "AA==")]),
        ]),
        ("edXMLBody", [("edXMLManifest", [("Reference", _FILE)])]),
    ]),
    ("AttachmentEncoded", [("Attachment", [*_FILE, ("Format", "pdf"), ("ContentTransferEncoded", "UEs=")])]),
])  # fmt: skip
