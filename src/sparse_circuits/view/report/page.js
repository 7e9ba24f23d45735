// The explorer is put into its frame when it is asked for, so that the page opens at once.
const button = document.getElementById('explore');
if (button) {
  button.addEventListener('click', () => {
    const frame = document.createElement('iframe');
    frame.title = 'The circuit, to be explored';
    frame.setAttribute('sandbox', 'allow-scripts allow-downloads');
    frame.addEventListener('load', () => frame.focus()); // keys are for what is in it
    frame.srcdoc = JSON.parse(document.getElementById('explorer-page').textContent);
    document.getElementById('explorer').replaceChildren(frame);
    button.disabled = true;
  });
}
