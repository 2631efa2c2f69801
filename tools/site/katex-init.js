// arithmatex leaves formulas as \(…\) and \[…\] in elements of its own class: nothing else is touched.
document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll(".arithmatex"))
    renderMathInElement(element, {throwOnError: false, delimiters: [{left: "\\[", right: "\\]", display: true}, {left: "\\(", right: "\\)", display: false}]});
});
