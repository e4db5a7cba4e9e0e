// For browsers in which the page's modules do not run: the first answer stays, and one sentence says why.
(function () {
  var why = "";
  if (location.protocol === "file:") why = "Opened as a file, this page shows one answer: a web server, as that of advise page --serve, makes it take others.";
  else if (!("noModule" in document.createElement("script"))) why = "This browser is too old to take another question; this page shows one answer.";
  if (!why) return;
  var place = document.getElementById("notice");
  place.textContent = why;
  place.hidden = false;
})();
